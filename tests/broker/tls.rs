//! `amqps://` means TLS from the first byte on.

use std::io::Read as _;
use std::net::TcpListener;
use std::time::Instant;

use super::child::{LOOK_AGAIN, Process, WAIT_MAX, command, free_port};
use super::org::TOKEN;

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
