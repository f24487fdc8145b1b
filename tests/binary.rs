//! The real binary: what it prints, how it fails, how it stops; and the README's tour, run as written.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use std::{fs, thread};

const BINARY: &str = env!("CARGO_BIN_EXE_kiegate");

fn kiegate(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

fn run(arguments: &[&str]) -> Output {
    kiegate(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running gateway; killed when dropped.
struct Server {
    child: Child,
    data: u16,
    admin: u16,
    banner: String,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Starts one on ports that the system chooses, and reads from its banner which they are.
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &std::env::temp_dir())
    }

    /// As [`Server::start`], with a folder of its own for temporary files.
    fn start_with(arguments: &[&str], temporary: &Path) -> Self {
        Self::start_in(arguments, &[("TMPDIR", temporary)])
    }

    /// As [`Server::start`], with these variables in its environment.
    fn start_in(arguments: &[&str], environment: &[(&str, &Path)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut child = kiegate(&["serve", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"])
            .args(arguments)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut banner = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            banner.push_str(&line);
            banner.push('\n');
            if line.starts_with("Dashboard at") {
                break;
            }
        }
        let plain = banner.replace("https://", "http://");
        let (data, admin) = (
            port_after(&plain, "mode at http://127.0.0.1:"),
            port_after(&plain, "Dashboard at http://127.0.0.1:"),
        );
        Self { child, data, admin, banner, log, _folder: folder }
    }

    /// Waits for a condition, 10 s at most.
    fn wait_until(&self, condition: impl Fn() -> bool) {
        for _ in 0..2000 {
            if condition() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("it did not come about within 10 s: {}", self.logged());
    }

    /// A connection over which a request for a callback that never comes is being held, for `seconds` at most.
    fn asked_to_wait(&self, seconds: u32) -> TcpStream {
        let mut socket = TcpStream::connect(("127.0.0.1", self.data)).unwrap();
        let target = format!("/_mock/inbox/a?count=1&wait={seconds}");
        let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer demo\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(200));
        socket
    }

    fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Sends bytes to the data plane and reads until the server closes.
    fn raw(&self, request: &[u8]) -> String {
        let mut socket = TcpStream::connect(("127.0.0.1", self.data)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let _ = socket.write_all(request);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn get(&self, path: &str) -> String {
        self.raw(
            format!(
                "GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer demo\r\nconnection: close\r\n\r\n"
            )
            .as_bytes(),
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The port that stands after `before`.
fn port_after(banner: &str, before: &str) -> u16 {
    let rest = banner.split(before).nth(1).unwrap_or_else(|| panic!("no {before} in {banner}"));
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

fn health(admin: u16) -> Output {
    run(&["health", "--admin", &format!("http://127.0.0.1:{admin}")])
}

#[test]
fn it_says_where_it_is_and_prints_a_line_that_works() {
    let server = Server::start(&[]);
    let line = server.banner.lines().find(|line| line.trim_start().starts_with("curl ")).unwrap().trim();
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(
        out(&output).starts_with(r#"{"code":200,"msg":"success","data":{"taskId":""#),
        "{} {}",
        out(&output),
        err(&output)
    );
    let arrived = server.get("/_mock/inbox/hello?count=1&wait=10");
    assert!(arrived.contains(r#""signature_valid":true"#), "{arrived}");
}

/// Every `sh` block of the README, in its order, against a fresh server.
#[test]
fn the_tour_of_the_readme_works_as_written() {
    let readme = fs::read_to_string("README.md").unwrap();
    let mut script = String::from("set -euo pipefail\n");
    let mut blocks = 0;
    for block in readme.split("\n```sh\n").skip(1) {
        script.push_str(block.split("\n```").next().unwrap());
        script.push('\n');
        blocks += 1;
    }
    assert!(blocks >= 5, "the README has a tour");
    let server = Server::start(&[]);
    let script = script.replace("127.0.0.1:8787", &format!("127.0.0.1:{}", server.data));
    let script = script.replace("127.0.0.1:8788", &format!("127.0.0.1:{}", server.admin));
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("bash").args(["-c", &script]).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}\n{}\n{}", script, out(&output), err(&output));
}

#[test]
fn it_becomes_ready_and_stops_when_told_to() {
    let mut server = Server::start(&[]);
    assert!(health(server.admin).status.success());
    let page = {
        let mut socket = TcpStream::connect(("127.0.0.1", server.admin)).unwrap();
        socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        socket.read_to_string(&mut page).unwrap();
        page
    };
    assert!(page.contains("kiegate_build_info{") && page.contains("process_cpu_seconds_total"), "{page}");
    server.signal("-TERM");
    let status = server.child.wait().unwrap();
    assert!(status.success(), "{status}: {}", server.logged());
    let gone = health(server.admin);
    assert_eq!(gone.status.code(), Some(1));
    assert!(err(&gone).contains("does not answer"), "{}", err(&gone));
}

#[test]
fn a_request_under_way_is_answered_before_it_stops() {
    let mut server = Server::start(&[]);
    let mut socket = server.asked_to_wait(2);
    server.signal("-TERM");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(r#""complete":false"#), "{answer}");
    assert!(server.child.wait().unwrap().success());
}

/// `cargo run` once could not start it: what the build script tells the compiler, cargo sets for what it runs, too.
#[test]
fn what_cargo_sets_for_what_it_runs_is_no_setting() {
    // But for what the test command tells the tests.
    let is_set = |name: &str| name.starts_with("KIEGATE_") && name != "KIEGATE_RECORD_STORIES";
    let set = std::env::vars().filter(|(name, _)| is_set(name));
    let output = kiegate(&["check"]).envs(set).output().unwrap();
    assert!(output.status.success(), "{}", err(&output));
    assert!(std::env::var("BUILD_COMMIT").is_ok(), "cargo sets it for tests as for what it runs");
}

#[test]
fn a_hangup_reloads_the_tenants() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kiegate.toml");
    let hash = |key: &str| {
        let mut child = kiegate(&["hash"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("{key}\n").as_bytes()).unwrap();
        out(&child.wait_with_output().unwrap()).trim().to_owned()
    };
    let config =
        |key: &str| format!("[mock]\nopen = false\n[[tenant]]\nid = \"acme\"\nkeys = [\"{}\"]\n", hash(key));
    fs::write(&file, config("another-fake-key")).unwrap();
    let server = Server::start(&["--config", file.to_str().unwrap()]);
    assert!(server.get("/api/v1/chat/credit").contains("401 Unauthorized"));
    // Connections that are open at once are served by different cores.
    let connect = |_| TcpStream::connect(("127.0.0.1", server.data)).unwrap();
    let mut open: Vec<TcpStream> = (0..4).map(connect).collect();
    let mut ask_all = || {
        let ask = |socket: &mut TcpStream| {
            let request = "GET /api/v1/chat/credit HTTP/1.1\r\nhost: x\r\nauthorization: Bearer demo\r\n\r\n";
            socket.write_all(request.as_bytes()).unwrap();
            let mut answer = [0; 4096];
            let length = socket.read(&mut answer).unwrap();
            String::from_utf8_lossy(&answer[..length]).split(' ').nth(1).unwrap().to_owned()
        };
        open.iter_mut().map(ask).collect::<Vec<_>>()
    };
    assert_eq!(ask_all(), ["401"; 4]);
    fs::write(&file, config("demo")).unwrap();
    server.signal("-HUP");
    let are_let_in = (0..500).any(|_| {
        thread::sleep(Duration::from_millis(20));
        ask_all() == ["200"; 4]
    });
    assert!(are_let_in, "{}", server.logged());
    fs::write(&file, "[mock]\nopn = true\n").unwrap();
    server.signal("-HUP");
    server.wait_until(|| server.logged().contains("did you mean"));
    assert!(server.get("/api/v1/chat/credit").contains("200 OK"), "the old configuration holds");
}

#[test]
fn a_wrong_configuration_is_refused_with_place_and_hint() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.toml");
    fs::write(&file, "mode = \"mock\"\n[mock]\npaec = \"instant\"\nseed = \"x\"\n").unwrap();
    let name = file.to_str().unwrap();
    for arguments in [["check", "--config", name], ["serve", "--config", name]] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2));
        let text = err(&output);
        assert!(
            text.contains("wrong.toml:3")
                && text.contains("mock.paec")
                && text.contains("did you mean \"pace\""),
            "{text}"
        );
        assert!(text.contains("wrong.toml:4"), "all problems at once: {text}");
    }
    let output = run(&["check"]);
    assert!(output.status.success() && out(&output).starts_with("ok: mode mock"), "{}", err(&output));
    let output = run(&["serve", "--mode", "replay"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("needs a recording"), "{}", err(&output));
    let output = run(&["check", "--config", "/nowhere/kiegate.toml"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_port_in_use_is_told_as_such() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = run(&["serve", &format!("--listen=127.0.0.1:{port}"), "--admin-listen=127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains(&format!("port {port} is in use")), "{}", err(&output));
}

#[test]
fn models_can_be_listed_for_people_and_machines() {
    let table = out(&run(&["models"]));
    assert!(
        table.contains("veo.generate")
            && table.contains("nano-banana-2")
            && table.contains("fail:minor_upload"),
        "{table}"
    );
    let json: serde_json::Value =
        serde_json::from_slice(&run(&["models", "--json", "--family", "jobs"]).stdout).unwrap();
    assert_eq!(json["operations"].as_array().unwrap().len(), 2);
    assert!(
        json["models"].as_array().unwrap().iter().any(|model| model["model"] == "kling-2.6/text-to-video")
    );
    let wrong = run(&["models", "--family", "rnway"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(err(&wrong).contains("there are account"), "{}", err(&wrong));
    for shell in ["bash", "zsh", "fish"] {
        assert!(out(&run(&["completions", shell])).contains("kiegate"));
    }
    assert!(out(&run(&["--version"])).starts_with("kiegate 0."));
}

#[test]
fn nonsense_on_the_socket_ends_nothing() {
    let server = Server::start(&[]);
    let long_head = format!("GET / HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(40 * 1024));
    assert!(server.raw(long_head.as_bytes()).starts_with("HTTP/1.1 431"), "head too large");
    let large = format!(
        "POST /api/v1/veo/generate HTTP/1.1\r\nhost: x\r\nauthorization: Bearer demo\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        11 * 1024 * 1024
    );
    assert!(server.raw(large.as_bytes()).starts_with("HTTP/1.1 413"), "body too large");
    for nonsense in [
        &b"\x00\x01\x02\x03\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /api/v1/veo/generate HTTP/1.1\r\nhost: x\r\ncontent-length: nine\r\n\r\n",
        b"POST /api/v1/veo/generate HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /%ff%fe?%zz=1&taskId=%00 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET /_media/../../etc/passwd HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    ] {
        server.raw(nonsense);
    }
    // A client that goes away in the middle of its body.
    let mut socket = TcpStream::connect(("127.0.0.1", server.data)).unwrap();
    socket.write_all(b"POST /api/v1/veo/generate HTTP/1.1\r\nhost: x\r\nauthorization: Bearer demo\r\ncontent-length: 100\r\n\r\n{").unwrap();
    drop(socket);
    assert!(server.get("/api/v1/chat/credit").contains(r#"{"code":200"#));
    assert!(!server.logged().contains("panicked"), "{}", server.logged());
}

#[test]
fn http_2_is_spoken_in_cleartext() {
    let server = Server::start(&[]);
    let url = format!("http://127.0.0.1:{}/api/v1/chat/credit", server.data);
    let output = Command::new("curl")
        .args([
            "-s",
            "--http2-prior-knowledge",
            "-w",
            " %{http_version}",
            "-H",
            "authorization: Bearer demo",
            &url,
        ])
        .output()
        .unwrap();
    assert_eq!(out(&output), r#"{"code":200,"msg":"success","data":10000.0} 2"#, "{}", err(&output));
}

#[test]
fn a_connection_without_a_request_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kiegate.toml");
    fs::write(&file, "[server]\nhead_timeout = \"1s\"\nidle_timeout = \"2s\"\n").unwrap();
    let server = Server::start(&["--config", file.to_str().unwrap()]);
    assert_eq!(server.raw(b""), "", "nothing at all");
    assert_eq!(server.raw(b"GET /api/v1/ch"), "", "half a head");
    let request = b"GET /api/v1/chat/credit HTTP/1.1\r\nhost: x\r\nauthorization: Bearer demo\r\n\r\n";
    assert!(server.raw(request).starts_with("HTTP/1.1 200"), "then idle");
}

#[test]
fn a_variable_that_is_no_text_is_nobodys_business() {
    use std::os::unix::ffi::OsStrExt as _;
    let odd = std::ffi::OsStr::from_bytes(&[0xff, 0xfe]);
    assert!(kiegate(&["check"]).env("ODD", odd).status().unwrap().success());
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Server::start(&[]);
    let _socket = server.asked_to_wait(60);
    server.signal("-INT");
    server.wait_until(|| server.logged().contains("stopping"));
    server.signal("-INT");
    assert!(server.child.wait().unwrap().success());
    assert!(server.logged().contains("second signal"), "{}", server.logged());
}

#[test]
fn the_example_configurations_are_there() {
    for file in ["config/kiegate.toml", "config/live.toml", "config/cluster.toml"] {
        assert!(Path::new(file).exists(), "{file}");
    }
    assert!(run(&["check", "--config", "config/kiegate.toml"]).status.success());
}

/// Sends the beginning of an upload of `size` bytes, up to its `sent`th.
fn begin_upload(server: &Server, size: usize, sent: usize) -> TcpStream {
    let head = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"large.bin\"\r\n\r\n";
    let end = "\r\n--b\r\ncontent-disposition: form-data; name=\"uploadPath\"\r\n\r\nlarge\r\n--b--\r\n";
    let length = head.len() + size + end.len();
    let request = format!(
        "POST /api/file-stream-upload HTTP/1.1\r\nhost: x\r\nauthorization: Bearer demo\r\nconnection: close\r\n\
         content-type: multipart/form-data; boundary=b\r\ncontent-length: {length}\r\n\r\n{head}"
    );
    let mut socket = TcpStream::connect(("127.0.0.1", server.data)).unwrap();
    socket.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    let piece: Vec<u8> = (0..=255).cycle().take(MIB).collect();
    for at in (0..sent).step_by(MIB) {
        socket.write_all(&piece[..MIB.min(sent - at)]).unwrap();
    }
    if sent == size {
        socket.write_all(end.as_bytes()).unwrap();
    }
    socket
}

const MIB: usize = 1024 * 1024;

/// Uploads `size` bytes; gives the path that they can be had at.
fn upload(server: &Server, size: usize) -> String {
    let mut answer = String::new();
    begin_upload(server, size, size).read_to_string(&mut answer).unwrap();
    assert!(answer.contains(&format!("\"fileSize\":{size},")), "{answer}");
    answer.split("\"downloadUrl\":\"http://x").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

/// The files below `folder`, however deep.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// The most memory that a process has had so far, in MiB.
fn peak_memory(child: &Child) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

/// A file of 200 MiB goes in and comes out, and the process does not grow by a tenth of it.
/// A pattern with a slip in it allows or denies nothing, and nobody was told.
#[test]
fn check_tells_of_patterns_that_match_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kiegate.toml");
    let text = "[[tenant]]\nid = \"acme\"\nallow = [\"vio.*\", \"runway.*\", \"model:veo3*\", \"other\"]\ndeny = [\"model:nosuch/*\"]\n";
    fs::write(&file, text).unwrap();
    let output = run(&["check", "--config", file.to_str().unwrap()]);
    assert!(output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("tenant acme: allow \"vio.*\" matches nothing"), "{told}");
    assert!(told.contains("deny \"model:nosuch/*\"") && told.lines().count() == 2, "{told}");
}

#[test]
fn a_large_upload_takes_little_memory() {
    let temporary = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(&[], temporary.path());
    upload(&server, MIB);
    let before = peak_memory(&server.child);
    let path = upload(&server, 200 * MIB);
    let after_upload = peak_memory(&server.child);
    assert!(after_upload < before + 20, "{before} MiB became {after_upload} MiB by an upload");
    let mut socket = TcpStream::connect(("127.0.0.1", server.data)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let (mut buffer, mut length, mut right) = (vec![0; MIB], 0, true);
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the head ends");
    }
    loop {
        let read = reader.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        right &=
            buffer[..read].iter().enumerate().all(|(at, byte)| usize::from(*byte) == (length + at) % 256);
        length += read;
    }
    assert_eq!((length, right), (200 * MIB, true));
    let after_download = peak_memory(&server.child);
    assert!(after_download < before + 20, "{before} MiB became {after_download} MiB by a download");
    server.signal("-TERM");
    assert!(server.child.wait().unwrap().success());
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn a_client_that_goes_away_half_way_leaves_no_file() {
    let temporary = tempfile::tempdir().unwrap();
    let server = Server::start_with(&[], temporary.path());
    let socket = begin_upload(&server, 8 * MIB, 4 * MIB);
    server.wait_until(|| files_below(temporary.path()).len() == 1);
    drop(socket);
    server.wait_until(|| files_below(temporary.path()).is_empty());
    assert!(!server.logged().contains("panicked"), "{}", server.logged());
}

#[test]
fn what_a_killed_process_left_is_cleared_by_the_next_and_what_lives_is_not() {
    let temporary = tempfile::tempdir().unwrap();
    let mut killed = Server::start_with(&[], temporary.path());
    let alive = Server::start_with(&[], temporary.path());
    upload(&killed, 1000);
    let path = upload(&alive, 2000);
    assert_eq!(files_below(temporary.path()).len(), 2);
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    assert_eq!(files_below(temporary.path()).len(), 2, "it had no time to tidy up");
    let next = Server::start_with(&[], temporary.path());
    next.wait_until(|| files_below(temporary.path()).len() == 1);
    assert!(alive.get(&path).starts_with("HTTP/1.1 200"), "the living keep theirs");
}

/// Cut off while an upload is on its way: a second signal ends at once.
#[test]
fn a_process_that_is_stopped_in_an_upload_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(&[], temporary.path());
    let _socket = begin_upload(&server, 8 * MIB, 4 * MIB);
    server.wait_until(|| files_below(temporary.path()).len() == 1);
    server.signal("-TERM");
    server.wait_until(|| server.logged().contains("stopping"));
    server.signal("-TERM");
    assert!(server.child.wait().unwrap().success());
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "nothing is left");
}

const CREDIT: &str = r#"{"startedDateTime":"2026-11-01T12:00:00.000Z","time":1,"request":{"method":"GET","url":"https://api.kie.ai/api/v1/chat/credit","headers":[]},"response":{"status":200,"headers":[{"name":"content-type","value":"application/json"}],"content":{"mimeType":"application/json","text":"{\"code\":200,\"msg\":\"success\",\"data\":7.5}"}}}"#;

fn recording(entries: &[&str]) -> String {
    format!("{{\"log\":{{\"version\":\"1.2\",\"entries\":[{}]}}}}", entries.join(","))
}

#[test]
fn a_recording_is_verified_and_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = write("good.har", &recording(&[CREDIT]));
    let output = run(&["verify", &good]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("  ok      common.credit (entry 1)\n"), "{}", out(&output));
    let totals = "\ncompared: 0 lifecycles with 0 questions, 1 other calls, 0 callbacks; 0 drift\n";
    assert!(out(&output).ends_with(totals), "{}", out(&output));
    let drifting = write("drifting.har", &recording(&[&CREDIT.replace("7.5", "\\\"7.5\\\"")]));
    let output = run(&["verify", "--json", &good, &drifting]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    for said in
        ["\"ok\": false", "\"what\": \"data\"", "\"recorded\": \"a text\"", "\"simulated\": \"a number\""]
    {
        assert!(out(&output).contains(said), "{said} in {}", out(&output));
    }
    let damaged = write("damaged.har", &recording(&[CREDIT, &CREDIT.replace("\"GET\"", "7")]));
    for arguments in
        [vec!["verify", damaged.as_str()], vec!["--mode", "replay", "--recording", damaged.as_str()]]
    {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(err(&output).contains("damaged.har: entry 2: request.method: "), "{}", err(&output));
    }
    let server = Server::start(&["--mode", "replay", "--recording", &good]);
    let mut socket = TcpStream::connect(("127.0.0.1", server.data)).unwrap();
    let request = "GET /api/v1/chat/credit HTTP/1.1\r\nhost: x\r\nauthorization: Bearer demo\r\nconnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"data\":7.5"), "{answer}");
}

/// The answer to a request with that key, head and body.
fn ask(port: u16, key: &str, line: &str, body: &str) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n");
    let head = format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

/// The line of a configuration that lets that key in.
fn key_line(key: &str) -> String {
    let mut hash = kiegate(&["hash"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    hash.stdin.take().unwrap().write_all(key.as_bytes()).unwrap();
    format!("keys = [\"{}\"]", out(&hash.wait_with_output().unwrap()).trim())
}

/// The upstream speaks TLS, as the real one does, with a certificate that only `SSL_CERT_FILE` vouches for.
#[test]
fn the_upstream_may_speak_tls() {
    let pem = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (cert, key) = (pem("one-cert.pem"), pem("one-key.pem"));
    let tls = format!("[tls]\ncert = \"{}\"\nkey = \"{}\"\n", cert.display(), key.display());
    let account = Server::start(&["--config", &file("account.toml", &tls)]);
    let (base, tenant) = (format!("https://localhost:{}", account.data), "kg_acme_key_of_a_test");
    let config = format!(
        "mode = \"live\"\n[upstream]\nbase_url = \"{base}\"\nupload_url = \"{base}\"\n[[upstream.key]]\n\
         name = \"main\"\nsecret = \"file:{}\"\n[[tenant]]\nid = \"acme\"\n{}\n",
        file("key", "upstream-key-of-a-test"),
        key_line(tenant)
    );
    let config = file("live.toml", &config);
    let gateway = Server::start_in(&["--config", &config], &[("SSL_CERT_FILE", &cert)]);
    let video = r#"{"prompt":"A paper boat","duration":5,"quality":"720p","aspectRatio":"16:9"}"#;
    let created = ask(gateway.data, tenant, "POST /api/v1/runway/generate", video);
    let id = created.split("\"taskId\":\"").nth(1).unwrap_or_else(|| panic!("{created}"));
    let details = format!("GET /api/v1/runway/record-detail?taskId={}", id.split('"').next().unwrap());
    gateway.wait_until(|| ask(gateway.data, tenant, &details, "").contains("\"state\":\"success\""));
    let talk = r#"{"messages":[{"role":"user","content":"Hello"}],"stream":true}"#;
    let said = ask(gateway.data, tenant, "POST /gemini-3-pro/v1/chat/completions", talk);
    assert!(said.contains("data: [DONE]"), "{said}");
    // Somebody who trusts nobody but the public's authorities does not talk to it.
    let stranger = Server::start(&["--config", &config]);
    let refused = ask(stranger.data, tenant, "GET /api/v1/chat/credit", "");
    assert!(refused.starts_with("HTTP/1.1 502") && refused.contains("upstream_unreachable"), "{refused}");
}

#[test]
fn a_gateway_that_is_killed_leaves_a_recording_that_can_be_verified_and_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let account = Server::start(&[]);
    fs::write(path("key"), "upstream-key-of-a-test").unwrap();
    let key = "kg_acme_key_of_a_test";
    let (base, secret) = (format!("http://127.0.0.1:{}", account.data), path("key"));
    let config = format!(
        "mode = \"record\"\nrecording = \"{}\"\n[upstream]\nbase_url = \"{base}\"\nupload_url = \"{base}\"\n\
         [[upstream.key]]\nname = \"main\"\nsecret = \"file:{secret}\"\n[[tenant]]\nid = \"acme\"\n{}\n",
        path("run.har"),
        key_line(key)
    );
    fs::write(path("record.toml"), config).unwrap();
    let mut gateway = Server::start(&["--config", &path("record.toml")]);
    let video = r#"{"prompt":"A paper boat","duration":5,"quality":"720p","aspectRatio":"16:9"}"#;
    let created = ask(gateway.data, key, "POST /api/v1/runway/generate", video);
    let id = created.split("\"taskId\":\"").nth(1).unwrap().split('"').next().unwrap();
    let details = format!("GET /api/v1/runway/record-detail?taskId={id}");
    let is_done = || ask(gateway.data, key, &details, "").contains("\"state\":\"success\"");
    gateway.wait_until(is_done);
    gateway.child.kill().unwrap();
    gateway.child.wait().unwrap();
    let text = fs::read_to_string(path("run.har")).unwrap();
    assert!(!text.contains(key) && !text.contains("upstream-key-of-a-test"), "{text}");
    let output = run(&["verify", &path("run.har")]);
    assert_eq!(output.status.code(), Some(0), "{}{}", out(&output), err(&output));
    assert!(out(&output).contains("0 of 1 lifecycles"), "{}", out(&output));
    let replay = Server::start(&["--mode", "replay", "--recording", &path("run.har")]);
    assert!(ask(replay.data, "ci", "POST /api/v1/runway/generate", video).contains(id));
    assert!(!ask(replay.data, "ci", &details, "").contains("\"state\":\"success\""));
    ask(replay.data, "ci", "POST /_mock/clock/advance", r#"{"by":"1h"}"#);
    assert!(ask(replay.data, "ci", &details, "").contains("\"state\":\"success\""));
    let again =
        run(&["--config", &path("record.toml"), "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(err(&again).contains("it is there already"), "{}", err(&again));
}

/// What a process answers to a fixed list of requests on a clock that stands: bodies, results and the clock's events.
fn played() -> Vec<String> {
    let server = Server::start(&[]);
    let send = |method: &str, path: &str, body: &str| {
        let head = "host: sim.test\r\nauthorization: Bearer demo\r\nconnection: close";
        let request =
            format!("{method} {path} HTTP/1.1\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let answer = server.raw(request.as_bytes());
        answer.split_once("\r\n\r\n").expect("a head").1.to_owned()
    };
    send("PUT", "/_mock/clock", r#"{"now": "2026-03-01T10:00:00Z", "rate": 0}"#);
    send("PUT", "/_mock/settings", r#"{"pace": "realistic", "failure_rate": 0.3}"#);
    let mut answers = Vec::new();
    let video = r#"{"prompt":"A boat","duration":5,"quality":"720p","aspectRatio":"16:9"}"#;
    let image = r#"{"model":"nano-banana-2","input":{"prompt":"A boat"}}"#;
    let mut details = Vec::new();
    for turn in 0..6 {
        let (create, body, look) = if turn % 2 == 0 {
            ("/api/v1/runway/generate", video, "/api/v1/runway/record-detail?taskId=")
        } else {
            ("/api/v1/jobs/createTask", image, "/api/v1/jobs/recordInfo?taskId=")
        };
        let answer = send("POST", create, body);
        let id = answer.split("\"taskId\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("an id");
        details.push(format!("{look}{id}"));
        answers.push(answer);
    }
    answers.push(send("POST", "/_mock/clock/advance", r#"{"by":"20s"}"#));
    answers.extend(details.iter().map(|path| send("GET", path, "")));
    answers.push(send("POST", "/_mock/clock/advance", r#"{"until":"idle"}"#));
    for path in &details {
        let record = send("GET", path, "");
        for link in record.split("http://sim.test").skip(1) {
            let end = link.find(['"', '\\']).expect("an end");
            answers.push(send("GET", &link[..end], ""));
        }
        answers.push(record);
    }
    answers
}

#[test]
fn two_processes_answer_the_same_requests_with_the_same_bytes() {
    let (one, other) = (played(), played());
    assert!(one.iter().any(|answer| answer.len() > 10_000), "a result is among them");
    assert_eq!(one.len(), other.len());
    for (place, (one, other)) in one.iter().zip(&other).enumerate() {
        assert!(one == other, "answer {place}: {one:.400} and {other:.400}");
    }
}
