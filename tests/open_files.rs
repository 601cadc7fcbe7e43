//! A process that has run out of open files: what is said, and that it is over when it is over. It lowers the limit of
//! its own process, so that it is the only test here.

use std::fs::File;
use std::sync::Arc;

use okta_worker::domain::http::{NoAnswer, Request};
use okta_worker::domain::secret::Secret;
use okta_worker::okta::{AnswerRoom, Credential, Endpoint, OktaClient, ROOM_BYTES_MIN, TokenType};
use okta_worker::telemetry::health;
use okta_worker::telemetry::health::Health;
use okta_worker::telemetry::metrics::Metrics;
use okta_worker::worker::ports::Okta as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};

/// As few files as a test process can do with.
const FILES_MAX: u64 = 128;

/// Opens files until there is none left.
fn open_all() -> Vec<File> {
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
        assert!(files.len() as u64 <= FILES_MAX, "the limit is not in force");
    }
    files
}

#[tokio::test]
async fn running_out_of_open_files_is_named_and_passes() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap();
    let (metrics, health) = (Arc::new(Metrics::new()), Arc::new(Health::new()));
    let _serving = tokio::spawn(health::serve(listener, metrics, health, std::future::pending()));
    let endpoint = Endpoint {
        base_url: format!("http://{place}"),
        credential: Credential::Token { kind: TokenType::Ssws, token: Secret::new("t0k") },
    };
    let okta = OktaClient::new(&endpoint, &AnswerRoom::new(ROOM_BYTES_MIN)).unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    let (_, most) = rlimit::Resource::NOFILE.get().unwrap();
    rlimit::Resource::NOFILE.set(FILES_MAX.min(most), most).unwrap();
    let files = open_all();

    let request = Request::get("/api/v1/users", &[]);
    let Err(NoAnswer::Local(why)) = okta.send(&request).await else { panic!("it has a file") };
    assert!(why.starts_with("too many open files: raise the limit of open files"), "{why}");

    // Somebody connects to the telemetry port, which can accept nobody: it tries again.
    let mut stream = socket.connect(place).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    tokio::task::yield_now().await;
    drop(files);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(okta.send(&request).await.unwrap().status, 404, "the telemetry port, which is no Okta");
}
