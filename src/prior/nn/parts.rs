//! Parts of a batch side by side, each on threads of its own.
//!
//! What is serial in one part (copies, small layers, the tape itself) overlaps with the other's work,
//! and nobody waits for a thread to wake up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

type Pools = Arc<Vec<ThreadPool>>;

/// `parts` pools that share `threads`, made once.
fn pools(parts: usize, threads: usize) -> Result<Pools> {
    static ALL: OnceLock<Mutex<HashMap<(usize, usize), Pools>>> = OnceLock::new();
    let mut all = ALL.get_or_init(Mutex::default).lock().expect("no panic while held");
    if let Some(pools) = all.get(&(parts, threads)) {
        return Ok(pools.clone());
    }
    let each = threads.div_ceil(parts.max(1));
    let made = (0..parts).map(|_| ThreadPoolBuilder::new().num_threads(each).build());
    let made: Vec<ThreadPool> =
        made.collect::<std::result::Result<_, _>>().map_err(|e| Error::Failed(format!("threads: {e}")))?;
    let made = Arc::new(made);
    all.insert((parts, threads), made.clone());
    Ok(made)
}

/// `work(0)` … `work(parts − 1)` at once, their results in order. How a batch is cut into parts is the
/// caller's choice and not that of the number of threads, which therefore does not decide the bytes.
///
/// # Errors
/// The first part's that failed.
pub fn in_parts<T: Send>(parts: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    if parts <= 1 || rayon::current_num_threads() <= 1 {
        return (0..parts).map(work).collect();
    }
    let pools = pools(parts, rayon::current_num_threads())?;
    let work = &work;
    let done: Vec<Result<T>> = std::thread::scope(|scope| {
        let run = |(i, pool): (usize, &'_ ThreadPool)| pool.install(|| work(i));
        let threads: Vec<_> = pools.iter().enumerate().map(|at| scope.spawn(move || run(at))).collect();
        threads.into_iter().map(|t| t.join().expect("no panic in a layer")).collect()
    });
    done.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_errors_come_out() {
        for parts in [0, 1, 2, 5] {
            let got = in_parts(parts, |i| Ok(i * i)).unwrap();
            assert_eq!(got, (0..parts).map(|i| i * i).collect::<Vec<_>>());
        }
        let failed = in_parts(3, |i| if i == 1 { Err(Error::Failed("one".into())) } else { Ok(i) });
        assert!(failed.unwrap_err().to_string().contains("one"));
    }
}
