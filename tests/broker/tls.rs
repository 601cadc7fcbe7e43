//! `amqps://` means TLS from the first byte on, with whom the authority of the file vouches for.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Read as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use super::caller::until;
use super::child::{LOOK_AGAIN, Process, WAIT_MAX, command, free_port, ran};
use super::node::ours;
use super::org::TOKEN;
use super::world::{BROKER_URL, Start, World};

/// The first byte of a TLS record that holds a handshake.
const HANDSHAKE: u8 = 0x16;

#[test]
fn an_amqps_url_is_never_spoken_to_in_plain_text() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url =
        format!("amqps://worker:hunter2-planted@127.0.0.1:{}/okta", listener.local_addr().unwrap().port());
    let mut run = command();
    run.arg("run")
        .env("OKTA_WORKER__BROKER__URL", url)
        .env("OKTA_WORKER__TELEMETRY__LISTEN", format!("127.0.0.1:{}", free_port()))
        .env("OKTA_WORKER__CONNECTIONS__PROD__DOMAIN", "acme.okta.com")
        .env("OKTA_WORKER__CONNECTIONS__PROD__API_TOKEN", TOKEN)
        .env("OKTA_WORKER__CONNECTIONS__PROD__SUBTOOLS", "read");
    let mut worker = Process::start("the worker", &mut run);
    let deadline = Instant::now() + WAIT_MAX;
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(_) => assert!(worker.ended().is_none(), "the worker ended: {}", worker.stderr()),
        }
        assert!(Instant::now() < deadline, "the worker does not connect: {}", worker.stderr());
        std::thread::sleep(LOOK_AGAIN);
    };
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
    let mut first = [0];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(first[0], HANDSHAKE);
    drop(stream);
    let deadline = Instant::now() + WAIT_MAX;
    while !worker.stderr().contains("lost the broker") {
        assert!(Instant::now() < deadline, "the worker does not say so: {}", worker.stderr());
        std::thread::sleep(LOOK_AGAIN);
    }
    assert!(!worker.stderr().contains("hunter2"), "{}", worker.stderr());
}

/// An authority of its own, as PEM, and a certificate for the loopback interface that it has signed, with its key.
fn authority(name: &str) -> (String, String, String) {
    let mut own = CertificateParams::default();
    own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    own.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let issuer = CertifiedIssuer::self_signed(own, key).unwrap();
    let broker = KeyPair::generate().unwrap();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let signed = CertificateParams::new(names).unwrap().signed_by(&broker, &issuer).unwrap();
    (issuer.pem(), signed.pem(), broker.serialize_pem())
}

/// A node of its own that speaks TLS alone, gone when this is dropped.
struct Node {
    dir: TempDir,
    port: u16,
}

impl Node {
    fn new() -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let file = |name: &str| dir.path().join(name).display().to_string();
        let settings = format!(
            "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
             ssl_options.keyfile = {}\nssl_options.verify = verify_none\n",
            file("ca.pem"),
            file("broker.pem"),
            file("broker.key")
        );
        std::fs::write(file("extra.conf"), settings).unwrap();
        Self { dir, port }
    }

    fn run(&self, command: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/broker");
        let ran = Command::new(script).arg(command).arg(self.dir.path()).output().unwrap();
        assert!(ran.status.success(), "{command}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    /// Starts it, with a certificate by this authority.
    fn start(&self, name: &str) -> String {
        let (authority, certificate, key) = authority(name);
        for (name, text) in [("ca.pem", &authority), ("broker.pem", &certificate), ("broker.key", &key)] {
            std::fs::write(self.dir.path().join(name), text).unwrap();
        }
        self.run("start");
        authority
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.run("stop");
    }
}

#[tokio::test]
async fn an_authority_that_is_rotated_is_waited_for_without_haste_and_trusted_as_soon_as_its_file_is_there() {
    if ours().is_none() {
        return;
    }
    let node = Node::new();
    let trusted = node.dir.path().join("trusted.pem");
    std::fs::write(&trusted, node.start("first")).unwrap();
    let world = World::new().await;
    let url = format!("amqps://worker:worker@localhost:{}/okta", node.port);
    let ca_file = trusted.display().to_string();
    let variables = [(BROKER_URL, &*url), ("OKTA_WORKER__BROKER__CA_FILE", &*ca_file)];
    let mut worker = world.worker_with(&Start { variables: &variables, ..Start::default() });
    node.run("stop");
    let next = node.start("second");
    until("the worker says whom it does not trust", async || {
        worker.process.stderr().to_lowercase().contains("certificate")
    })
    .await;
    tokio::time::sleep(Duration::from_secs(5)).await; // what is to be seen is that it does not run hot
    assert!(worker.process.ended().is_none(), "it waits: {}", worker.process.stderr());
    assert!(!worker.is_ready());
    let tries =
        worker.process.stderr().lines().filter(|line| line.to_lowercase().contains("certificate")).count();
    assert!((1..20).contains(&tries), "{tries} tries: {}", worker.process.stderr());
    std::fs::write(&trusted, next).unwrap();
    worker.await_ready();
    let file = world.file("dead.toml");
    std::fs::write(&file, worker.settings()).unwrap();
    let mut list = command();
    list.arg("--config").arg(file).args(["dead", "list"]).envs(variables);
    let (code, stdout, stderr) = ran(&mut list);
    assert_eq!((code, stdout.as_str()), (0, "no parked message matches\n"), "{stderr}");
    worker.stop();
}
