//! Download of priors from a hub that this test plays.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use gen3d::prior::hub::{Pull, pull_into};
use sha2::{Digest as _, Sha256};

/// What the hub does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Every answer with more than 1000 bytes ends after 1000.
    CutsOff,
    /// Weights have one byte changed.
    Corrupt,
    /// No ranges: every answer is the whole file.
    NoRanges,
}

struct Server {
    url: String,
    log: Arc<Mutex<Vec<String>>>,
}

fn files() -> HashMap<&'static str, Vec<u8>> {
    let weights: Vec<u8> = (0..5000u32).map(|i| (i * 7 % 251) as u8).collect();
    HashMap::from([
        ("model_index.json", b"{}".to_vec()),
        ("unet/config.json", b"{\"a\": 1}".to_vec()),
        ("unet/diffusion_pytorch_model.safetensors", weights.clone()),
        ("unet/diffusion_pytorch_model.fp16.safetensors", weights[..2500].to_vec()),
        ("unet/diffusion_pytorch_model.bin", weights.clone()),
        ("vae/diffusion_pytorch_model.safetensors", weights[..10].to_vec()),
        ("tokenizer/merges.txt", b"#version".to_vec()),
        ("README.md", b"hello".to_vec()),
        ("v1-5-pruned.safetensors", weights),
    ])
}

fn serve(fault: Fault) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let log = Arc::new(Mutex::new(Vec::new()));
    let told = log.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream, fault, &told);
        }
    });
    Server { url, log }
}

fn answer(mut stream: TcpStream, fault: Fault, log: &Mutex<Vec<String>>) {
    let (mut path, mut from) = (String::new(), 0usize);
    for line in BufReader::new(&stream).lines().map_while(Result::ok).take_while(|l| !l.is_empty()) {
        if let Some(rest) = line.strip_prefix("GET ") {
            path = rest.split(' ').next().unwrap().to_owned();
        }
        if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap();
        }
    }
    log.lock().unwrap().push(format!("{path} {from}"));
    let files = files();
    let body = if path == "/api/models/some/prior/tree/main?recursive=true" {
        let list: Vec<_> = files
            .iter()
            .map(|(path, bytes)| {
                let oid = format!("{:x}", Sha256::digest(bytes));
                let lfs = path.ends_with(".safetensors").then(|| serde_json::json!({"oid": oid}));
                serde_json::json!({"type": "file", "path": path, "size": bytes.len(), "lfs": lfs})
            })
            .collect();
        Some(serde_json::to_vec(&list).unwrap())
    } else {
        path.strip_prefix("/some/prior/resolve/main/").and_then(|p| files.get(p)).cloned()
    };
    let Some(mut body) = body else {
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    };
    if fault == Fault::Corrupt && path.ends_with(".safetensors") {
        body[3] ^= 1;
    }
    let ranged = from > 0 && fault != Fault::NoRanges;
    let body = if ranged { &body[from..] } else { &body[..] };
    let status = if ranged { "206 Partial Content" } else { "200 OK" };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let sent =
        if fault == Fault::CutsOff && !path.contains("/api/") { body.len().min(1000) } else { body.len() };
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&body[..sent]);
}

fn what(endpoints: &[&Server], variant: Option<&str>) -> Pull {
    Pull {
        source: "some/prior".into(),
        revision: "main".into(),
        variant: variant.map(str::to_owned),
        endpoints: endpoints.iter().map(|s| s.url.clone()).collect(),
    }
}

fn pull(dir: &std::path::Path, what: &Pull) -> gen3d::Result<std::path::PathBuf> {
    pull_into(dir, "it", what, &mut |_, done, of| {
        assert!(done <= of);
        Ok(())
    })
}

#[test]
fn the_files_of_a_prior_come_and_nothing_else() {
    for (variant, weights) in [(None, 5000), (Some("fp16"), 2500)] {
        let (dir, server) = (tempfile::tempdir().unwrap(), serve(Fault::None));
        let done = pull(dir.path(), &what(&[&server], variant)).unwrap();
        let name = if variant.is_some() { ".fp16" } else { "" };
        let unet = done.join(format!("unet/diffusion_pytorch_model{name}.safetensors"));
        assert_eq!(std::fs::metadata(unet).unwrap().len(), weights);
        let unwanted = ["README.md", "v1-5-pruned.safetensors", "unet/diffusion_pytorch_model.bin"];
        assert!(unwanted.iter().all(|f| !done.join(f).exists()));
        assert!(done.join("tokenizer/merges.txt").exists() && !dir.path().join("it.partial").exists());
    }
}

#[test]
fn a_download_that_is_cut_off_goes_on_where_it_was() {
    let (dir, server) = (tempfile::tempdir().unwrap(), serve(Fault::CutsOff));
    let mut calls = 0;
    let done = loop {
        calls += 1;
        match pull(dir.path(), &what(&[&server], None)) {
            Ok(done) => break done,
            Err(error) => {
                assert!(error.to_string().contains("cut off") && calls < 20, "{error}");
                assert!(!dir.path().join("it").exists(), "nothing appears before it is whole");
            }
        }
    };
    let name = "unet/diffusion_pytorch_model.safetensors";
    assert_eq!(std::fs::read(done.join(name)).unwrap(), files()[name]);
    let log = server.log.lock().unwrap();
    let asked: Vec<&String> = log.iter().filter(|l| l.contains("unet/diff")).collect();
    assert!(asked[1].ends_with(" 1000") && asked[4].ends_with(" 4000") && asked.len() == 5, "{asked:?}");
}

#[test]
fn a_wrong_sum_is_refused_and_another_mirror_helps() {
    let dir = tempfile::tempdir().unwrap();
    let (bad, good) = (serve(Fault::Corrupt), serve(Fault::None));
    let error = pull(dir.path(), &what(&[&bad], None)).unwrap_err();
    assert!(error.to_string().contains("SHA-256"), "{error}");
    let done = pull(dir.path(), &what(&[&bad, &good], None)).unwrap();
    let name = "vae/diffusion_pytorch_model.safetensors";
    assert_eq!(std::fs::read(done.join(name)).unwrap(), files()[name]);
}

#[test]
fn a_stale_half_and_a_hub_without_ranges_do_no_harm() {
    for fault in [Fault::None, Fault::NoRanges] {
        let (dir, server) = (tempfile::tempdir().unwrap(), serve(fault));
        let name = "unet/diffusion_pytorch_model.safetensors";
        let part = dir.path().join("it.partial").join(format!("{name}.part"));
        std::fs::create_dir_all(part.parent().unwrap()).unwrap();
        std::fs::write(&part, [9; 700]).unwrap();
        let done = pull(dir.path(), &what(&[&server], None)).unwrap();
        assert_eq!(std::fs::read(done.join(name)).unwrap(), files()[name]);
    }
}

#[test]
fn what_is_not_there_is_said() {
    let (dir, server) = (tempfile::tempdir().unwrap(), serve(Fault::None));
    let base = what(&[&server], None);
    let cases = [
        (Pull { source: "other/prior".into(), ..base.clone() }, "404"),
        (Pull { source: "nonsense".into(), ..base.clone() }, "no repository"),
        (
            Pull { variant: Some("bf16".into()), ..base.clone() },
            "no .safetensors weights of the variant bf16",
        ),
        (Pull { endpoints: vec!["http://127.0.0.1:1".into()], ..base }, "127.0.0.1:1"),
    ];
    for (what, part) in cases {
        let error = pull(dir.path(), &what).unwrap_err();
        assert!(error.to_string().contains(part), "{part}: {error}");
        assert!(!dir.path().join("it").exists());
    }
}
