//! A page in the browser that shows runs while they go: pictures, curves, configuration, and the finished
//! asset to turn around.
//!
//! [`Server`] answers on the loopback interface only, to requests that name it by a loopback name, with the
//! program's own page and the files of runs that [`site::Site`] knows by number and not by path. It reads run
//! folders and nothing else; the run does not know that it is watched.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use crate::{Error, Result};

pub mod follow;
mod serve;
pub mod site;

use site::Site;

/// A page that is ready to be asked for.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    site: Site,
}

impl Server {
    /// Takes a port (0: any that is free) for the runs at `path`: a run folder, its product, or a folder of runs.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no run at `path` or the port is taken.
    pub fn bind(path: &Path, port: u16) -> Result<Self> {
        let site = Site::open(path)?;
        let failed = |e: std::io::Error| {
            Error::invalid("--port", format!("cannot listen on {port}: {e}"))
                .hint("take another one, or leave it out for any that is free")
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, site })
    }

    /// Where the page is.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Answers until the process ends.
    ///
    /// # Errors
    /// [`Error::Failed`] if the system refuses the socket.
    pub fn run(self) -> Result<()> {
        let failed = |e: std::io::Error| Error::Failed(format!("the page cannot be served: {e}"));
        // One thread: a person or two are watching, and the machine belongs to the run.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(self.listener).map_err(failed)?;
            let router = serve::router(self.site, self.address.port());
            axum::serve(listener, router).await.map_err(failed)
        })
    }
}
