//! HTTPS on both planes, with certificates that are made for this test and prove nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Version};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kiegate::app::{App, StartError};
use kiegate::config::{Config, Sources};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use tokio_rustls::{TlsConnector, rustls};

/// A file of `tests/tls`.
fn pem(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

fn config(cert: &Path, key: &Path) -> Config {
    let text = format!(
        "listen = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[server]\nhead_timeout = \"1s\"\n\
         [tls]\ncert = \"{}\"\nkey = \"{}\"\n",
        cert.display(),
        key.display()
    );
    let sources =
        Sources { file: Some(("test.toml".into(), text)), environment: Vec::new(), flags: Vec::new() };
    sources.read().unwrap_or_else(|error| panic!("{error}"))
}

/// Runs `app` until the sender is used; then the receiver tells when it has ended.
fn run(app: App) -> (oneshot::Sender<()>, oneshot::Receiver<()>) {
    let (stop, stopped) = oneshot::channel();
    let (ended, end) = oneshot::channel();
    kiegate::background::spawn(async move {
        app.run(async { drop(stopped.await) }).await;
        let _ = ended.send(());
    });
    (stop, end)
}

/// A connection of somebody who trusts the certificate `cert`, and speaks `protocol`.
async fn connect(port: u16, cert: &Path, protocol: &str) -> Result<TlsStream<TcpStream>, std::io::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.into()];
    let socket = TcpStream::connect(("127.0.0.1", port)).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), socket).await
}

fn ask(path: &str, port: u16) -> Request<Empty<Bytes>> {
    Request::get(format!("https://localhost:{port}{path}"))
        .header("host", format!("localhost:{port}"))
        .header("authorization", "Bearer demo")
        .body(Empty::new())
        .unwrap()
}

async fn text(body: hyper::body::Incoming) -> String {
    let bytes = axum::body::to_bytes(Body::new(body), usize::MAX).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn both_planes_speak_both_versions_of_http() {
    let app = App::start(config(&pem("one-cert.pem"), &pem("one-key.pem"))).unwrap();
    assert_eq!(app.scheme(), "https");
    let (data, admin) = (app.data_address().port(), app.admin_address().port());
    let (stop, end) = run(app);
    for port in [data, admin] {
        let stream = connect(port, &pem("one-cert.pem"), "http/1.1").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        kiegate::background::spawn(connection);
        let answer = sender.send_request(ask("/nothing", port)).await.unwrap();
        assert_eq!((answer.version(), answer.status().as_u16()), (Version::HTTP_11, 404));

        let stream = connect(port, &pem("one-cert.pem"), "h2").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let io = TokioIo::new(stream);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        kiegate::background::spawn(connection);
        let answer = sender.send_request(ask("/nothing", port)).await.unwrap();
        assert_eq!((answer.version(), answer.status().as_u16()), (Version::HTTP_2, 404));
    }
    stop.send(()).unwrap();
    end.await.unwrap();
}

/// Links once began with `http://` whatever the client had come by.
#[tokio::test]
async fn links_begin_as_the_client_came() {
    let app = App::start(config(&pem("one-cert.pem"), &pem("one-key.pem"))).unwrap();
    let port = app.data_address().port();
    let (stop, _) = run(app);
    let stream = connect(port, &pem("one-cert.pem"), "http/1.1").await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    kiegate::background::spawn(connection);
    let mut request = ask("/_mock/inbox", port);
    // As HTTP/1.1 clients send it: no scheme in the target.
    *request.uri_mut() = "/_mock/inbox".parse().unwrap();
    let body = text(sender.send_request(request).await.unwrap().into_body()).await;
    assert!(body.contains(&format!("https://localhost:{port}/_mock/inbox/")), "{body}");
    stop.send(()).unwrap();
}

#[tokio::test]
async fn a_new_certificate_is_taken_over_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let put = |name: &str| {
        fs::copy(pem(&format!("{name}-cert.pem")), &cert).unwrap();
        fs::copy(pem(&format!("{name}-key.pem")), &key).unwrap();
    };
    put("one");
    let config = config(&cert, &key);
    let app = App::start(config.clone()).unwrap();
    let (port, handle) = (app.data_address().port(), app.handle());
    let (stop, _) = run(app);
    let mut old = connect(port, &pem("one-cert.pem"), "http/1.1").await.unwrap();
    put("two");
    handle.reload(&config).unwrap();
    connect(port, &pem("two-cert.pem"), "http/1.1").await.unwrap();
    assert!(connect(port, &pem("one-cert.pem"), "http/1.1").await.is_err(), "the old one is gone");
    fs::write(&cert, "nonsense").unwrap();
    let error = handle.reload(&config).unwrap_err().to_string();
    assert!(error.contains("cert.pem: there is no certificate"), "{error}");
    connect(port, &pem("two-cert.pem"), "http/1.1").await.unwrap();
    let request = b"GET /_mock/nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut old, request).await.unwrap();
    let mut answer = Vec::new();
    let _ = old.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 404"), "a connection keeps the certificate that it began with");
    stop.send(()).unwrap();
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.pem");
    fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
    let (cert, key) = (pem("one-cert.pem"), pem("one-key.pem"));
    let check = async |cert: &Path, key: &Path, expected: &str| match App::start(config(cert, key)) {
        Err(error @ StartError::Tls(_)) => {
            let told = error.to_string();
            assert!(told.contains(expected), "expected {expected}, got {told}");
        }
        Err(other) => panic!("{expected}: {other}"),
        Ok(_) => panic!("{expected}: it started"),
    };
    check(Path::new("/nowhere/cert.pem"), &key, "/nowhere/cert.pem: No such file").await;
    check(&cert, Path::new("/nowhere/key.pem"), "/nowhere/key.pem: No such file").await;
    check(&broken, &key, "broken.pem: not a sound PEM file").await;
    check(&key, &key, "one-key.pem: there is no certificate in it").await;
    check(&cert, &cert, "one-cert.pem: there is no private key in it").await;
    check(&cert, &pem("two-key.pem"), "one-cert.pem and ").await;
}

#[tokio::test]
async fn a_handshake_that_dawdles_is_given_up_and_holds_up_nobody() {
    let app = App::start(config(&pem("one-cert.pem"), &pem("one-key.pem"))).unwrap();
    let port = app.data_address().port();
    let (stop, end) = run(app);
    let mut silent = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), silent.read(&mut [0; 8])).await;
    assert_eq!(ended.expect("within head_timeout, which is 1 s").unwrap_or(0), 0);
    let _silent = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    connect(port, &pem("one-cert.pem"), "h2").await.unwrap();
    let began = tokio::time::Instant::now();
    stop.send(()).unwrap();
    end.await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(900), "a handshake under way is no request");
}
