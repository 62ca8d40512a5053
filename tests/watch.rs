//! `gen3d watch`: what its server answers and refuses, and what a browser makes of its page.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use assert_cmd::cargo::cargo_bin;
use gen3d::asset;
use gen3d::mesh::{MeshOptions, build_asset};
use glam::Vec3;
use image::{Rgb, RgbImage};
use serde_json::Value;
use tempfile::TempDir;

/// A server, ended with the test.
struct Watch {
    child: Child,
    port: u16,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Watch {
    fn start(path: &Path) -> Self {
        let mut child = Command::new(cargo_bin("gen3d"))
            .arg("watch")
            .arg(path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("http://127.0.0.1:").and_then(|l| l.strip_suffix('/'));
        let port = port.unwrap_or_else(|| panic!("{line:?}")).parse().unwrap();
        Self { child, port }
    }

    fn raw(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("an HTTP answer");
        let headers = String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
        let status = headers.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, headers, body: bytes[end + 4..].to_vec() }
    }

    fn ask(&self, method: &str, path: &str, host: &str) -> Answer {
        self.raw(&format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &format!("127.0.0.1:{}", self.port))
    }

    /// Names and numbers of the runs.
    fn runs(&self) -> Vec<(String, String)> {
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        let json = self.get("/api/runs").json();
        json.as_array().unwrap().iter().map(|r| (text(&r["name"]), text(&r["id"]))).collect()
    }
}

const HOSTILE: &str = "<img src=x onerror=document.title='owned'>";

fn started(what: &str) -> String {
    serde_json::json!({"event": "started", "what": what, "device": "cpu", "steps": 40, "seed": 0}).to_string()
        + "\n{\"event\":\"stage_started\",\"stage\":\"optimize\"}\n"
}

fn step(step: u32) -> String {
    let x = f64::from(step);
    serde_json::json!({
        "event": "step", "step": step, "steps": 40, "guidance": 0.5 + 0.3 * (x / 5.0).sin(),
        "timestep": 900.0 - 20.0 * x, "opacity": 0.1 + x / 100.0, "haze": 0.5 / x, "regularizer": 0.1,
        "terms": { "opaque": 0.2 / x, "sparsity": 0.01 * x }, "gradient": 1e-3 * x, "learned": 0.0,
        "learning_rate": 0.01, "seconds": 0.25, "memory": 300_000_000 + step * 1000,
    })
    .to_string()
        + "\n"
}

/// A run folder with a log of some steps, and a preview.
fn begun(dir: &Path, name: &str, steps: u32) -> PathBuf {
    let run = dir.join(format!("{name}.gen3d"));
    fs::create_dir(&run).unwrap();
    let text = started("a red ball") + &(1..=steps).map(step).collect::<String>();
    fs::write(run.join("log.jsonl"), text).unwrap();
    fs::write(run.join("config.toml"), "seed = 3\n[optim]\nsteps = 40\n").unwrap();
    RgbImage::from_pixel(96, 48, Rgb([40, 60, 200])).save(run.join("preview.png")).unwrap();
    run
}

/// The product: a ball as red as the sRGB of a linear (.8, .05, .05).
fn finish(run: &Path) {
    let density =
        |points: &[Vec3]| points.iter().map(|p| (80.0 * (0.5 - p.length())).exp().min(500.0)).collect();
    let color = |points: &[Vec3]| points.iter().map(|_| Vec3::new(0.8, 0.05, 0.05)).collect();
    let options = MeshOptions { resolution: 32, triangles: 800, texture_size: 64, ..Default::default() };
    let (asset, report) = build_asset(&density, &color, &options, &mut |_, _| Ok(())).unwrap();
    asset::save(&asset, &run.with_extension("glb")).unwrap();
    let line = serde_json::json!({
        "event": "finished", "output": run.with_extension("glb"), "bytes": 12_345, "seconds": 71.0,
        "mesh": { "triangles": report.triangles },
    });
    let mut log = OpenOptions::new().append(true).open(run.join("log.jsonl")).unwrap();
    writeln!(log, "{line}").unwrap();
}

#[test]
fn a_run_is_followed_while_it_grows() {
    let dir = TempDir::new().unwrap();
    let run = begun(dir.path(), "ball", 3);
    let watch = Watch::start(&run);
    let [(name, id)] = &watch.runs()[..] else { panic!("one run") };
    assert_eq!(name, "ball");
    let first = watch.get(&format!("/api/runs/{id}/events/0/0")).json();
    assert_eq!(first["log"]["events"].as_array().unwrap().len(), 5);
    let overview = &first["run"];
    let seen = (overview["step"].as_u64(), overview["steps"].as_u64(), overview["what"].as_str());
    assert_eq!(seen, (Some(3), Some(40), Some("a red ball")));
    assert_eq!((&overview["finished"], &overview["pictures"][0]), (&false.into(), &"preview.png".into()));

    let mut log = OpenOptions::new().append(true).open(run.join("log.jsonl")).unwrap();
    let (half, rest) = (&step(4)[..20], &step(4)[20..]);
    log.write_all(half.as_bytes()).unwrap();
    let after = |chunk: &Value| {
        let (next, mark) = (&chunk["log"]["next"], chunk["log"]["mark"].as_str().unwrap());
        watch.get(&format!("/api/runs/{id}/events/{next}/{mark}")).json()
    };
    assert!(after(&first)["log"]["events"].as_array().unwrap().is_empty());
    log.write_all(rest.as_bytes()).unwrap();
    let second = after(&first);
    assert_eq!(second["log"]["events"][0]["step"], 4);
    finish(&run);
    let third = after(&second);
    assert_eq!((&third["run"]["finished"], &third["run"]["assets"][0]), (&true.into(), &"ball.glb".into()));
    // Begun anew.
    fs::write(run.join("log.jsonl"), started("a blue ball") + &step(1)).unwrap();
    let fourth = after(&third);
    assert_eq!((&fourth["log"]["reset"], &fourth["run"]["finished"]), (&true.into(), &false.into()));

    assert_eq!(watch.get(&format!("/api/runs/{id}/config")).json()["optim"]["steps"], 40);
    let preview = watch.get(&format!("/runs/{id}/preview.png"));
    assert!(preview.status == 200 && preview.headers.contains("content-type: image/png"));
    assert_eq!(preview.body, fs::read(run.join("preview.png")).unwrap());
    let glb = watch.get(&format!("/runs/{id}/asset-0.glb"));
    assert!(glb.status == 200 && glb.body == fs::read(run.with_extension("glb")).unwrap());
}

#[test]
fn what_is_not_the_runs_own_or_not_asked_from_here_is_refused() {
    let dir = TempDir::new().unwrap();
    begun(dir.path(), "a", 1);
    fs::create_dir(dir.path().join(format!("{HOSTILE}.gen3d"))).unwrap();
    fs::write(dir.path().join("secret.txt"), "s").unwrap();
    let watch = Watch::start(dir.path());
    let runs = watch.runs();
    assert_eq!(runs.len(), 2);
    assert!(runs.iter().any(|(name, _)| name == HOSTILE), "{runs:?}");
    let id = &runs.iter().find(|(name, _)| name == "a").unwrap().1;
    for path in [
        "/runs/../secret.txt",
        "/runs/%2e%2e/secret.txt",
        &format!("/runs/{id}/../../secret.txt"),
        &format!("/runs/{id}/..%2f..%2fsecret.txt"),
        &format!("/runs/{id}/%2fetc%2fpasswd"),
        &format!("/runs/{id}/log.jsonl"),
        &format!("/runs/{id}/asset-0.glb"),
        &format!("/runs/{id}/asset--1.glb"),
        &format!("/runs/{id}/asset-99999999999999999999999.glb"),
        "/runs/00/preview.png",
        "/api/runs/../../etc/events/0/0",
        "/api/runs/00/events/0/0",
        "/secret.txt",
        "/watch.js/..",
        "//etc/passwd",
    ] {
        let answer = watch.get(path);
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
    }
    let answer = watch.get(&format!("/api/runs/{id}/events/-1/0"));
    assert!(answer.status == 400, "{}", answer.status);
    let past = watch.get(&format!("/api/runs/{id}/events/18446744073709551615/0")).json();
    assert_eq!(past["log"]["reset"], true);

    // Names of this machine alone; with them, every answer has its headers.
    let port = watch.port;
    for host in [format!("localhost:{port}"), format!("127.0.0.1:{port}"), format!("LOCALHOST:{port}")] {
        let answer = watch.ask("GET", "/", &host);
        assert!(answer.status == 200 && answer.text().contains("<title>gen3d"), "{host}");
        for header in ["content-security-policy: default-src 'none'", "nosniff", "no-store", "same-origin"] {
            assert!(answer.headers.contains(header), "{header}: {}", answer.headers);
        }
    }
    for host in ["evil.example", "localhost", "localhost:1", &format!("evil.example:{port}"), ""] {
        for path in ["/", "/api/runs"] {
            let answer = watch.ask("GET", path, host);
            assert!(matches!(answer.status, 400 | 421), "{host}: {}", answer.status);
            assert!(!answer.text().contains("gen3d</title>") && !answer.text().contains("\"id\""));
        }
    }
    let none = watch.raw("GET / HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert!(matches!(none.status, 400 | 421), "{}", none.status);
    let two = format!("GET / HTTP/1.1\r\nHost: localhost:{port}\r\nHost: evil\r\nConnection: close\r\n\r\n");
    assert!(matches!(watch.raw(&two).status, 400 | 421));
    let whole = format!("GET http://evil/ HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
    assert!(matches!(watch.raw(&whole).status, 400 | 421));
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        assert_eq!(watch.ask(method, "/api/runs", &format!("localhost:{port}")).status, 405, "{method}");
    }
    // Nothing but the loopback interface listens.
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let ours = format!(":{port:04X} ");
    let listening = table.lines().filter(|l| l.split_whitespace().nth(3) == Some("0A") && l.contains(&ours));
    assert!(listening.clone().all(|l| l.contains("0100007F:")), "{table}");
}

#[test]
fn the_command_says_what_it_cannot_watch() {
    let dir = TempDir::new().unwrap();
    let output =
        Command::new(cargo_bin("gen3d")).arg("watch").arg(dir.path().join("no.glb")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && text.contains("is no run") && text.contains("hint"), "{text}");
    let taken = Watch::start(dir.path());
    let output = Command::new(cargo_bin("gen3d"))
        .args(["watch", "--port", &taken.port.to_string()])
        .arg(dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "a port that is taken");
}

/// The document that Chromium makes of a page after a while, and a screenshot at `picture`. Nothing (with a
/// message) if there is no Chromium.
fn chromium(url: &str, picture: &Path) -> Option<String> {
    let profile = TempDir::new().unwrap();
    let document = profile.path().join("document.html");
    let mut command = Command::new("chromium");
    command.args([
        "--headless",
        "--no-sandbox",
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--window-size=1200,1500",
        "--virtual-time-budget=8000",
        "--dump-dom",
    ]);
    command.arg(format!("--user-data-dir={}", profile.path().join("profile").display()));
    command.arg(format!("--screenshot={}", picture.display())).arg(url);
    command.stdout(fs::File::create(&document).unwrap()).stderr(Stdio::null());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => {
            eprintln!("SKIPPED: chromium cannot be started ({e})");
            return None;
        }
    };
    // Two seconds where nothing else runs.
    let start = std::time::Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > Duration::from_secs(150) {
            let _ = child.kill().and_then(|()| child.wait());
            panic!("chromium does not come to an end with {url}");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success(), "chromium: {status}");
    Some(fs::read_to_string(document).unwrap())
}

#[test]
fn a_browser_lists_runs_and_shows_a_finished_one() {
    let dir = TempDir::new().unwrap();
    let run = begun(dir.path(), "ball", 40);
    finish(&run);
    begun(dir.path(), HOSTILE, 2);
    let watch = Watch::start(dir.path());
    let url = format!("http://127.0.0.1:{}/", watch.port);
    let picture = dir.path().join("page.png");
    let Some(list) = chromium(&url, &picture) else { return };
    assert!(list.contains("data-runs=\"2\"") && list.contains("a red ball"), "{list}");
    assert!(
        list.contains("&lt;img src=x") && !list.contains("<img src=\"x\"") && !list.contains("<title>owned")
    );
    let id = &watch.runs().iter().find(|(name, _)| name == "ball").unwrap().1.clone();
    let page = chromium(&format!("{url}#{id}"), &picture).unwrap();
    assert!(page.contains("data-steps=\"40\"") && page.contains("data-state=\"finished\""), "{page}");
    let triangles = page.split("data-viewer=\"").nth(1).and_then(|t| t.split('"').next()).unwrap();
    assert!(triangles.parse::<u32>().is_ok_and(|n| n > 100), "the viewer says {triangles}: {page}");
    assert!(page.contains("sparsity 0.4") && page.contains("optim.steps") && page.contains("1 min 11 s"));

    // WebGL really drew the ball: red pixels, lit from one side.
    if let Some(keep) = std::env::var_os("GEN3D_SCREENSHOT") {
        fs::copy(&picture, keep).unwrap();
    }
    let seen = image::open(&picture).unwrap().into_rgb8();
    let red: Vec<u8> =
        seen.pixels().filter(|p| p[0] > 70 && p[1] < p[0] / 2 && p[2] < p[0] / 2).map(|p| p[0]).collect();
    let (low, high) = (red.iter().min().unwrap_or(&0), red.iter().max().unwrap_or(&0));
    assert!(red.len() > 20_000 && high - low > 60, "{} red pixels, {low} … {high}", red.len());
}
