//! The broker cuts a worker off while it declares, as RabbitMQ 3.10 does now and then when many come at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::caller::Message;
use super::node::{User, ours};
use super::world::{Start, World};

/// The queue whose declaration is cut off.
const QUEUE: &[u8] = b"okta.invocations.prod.bulk";

/// How often.
const CUTS: usize = 2;

/// `connection.close` with 541, about `queue.declare`, as a frame of channel 0.
fn internal_error() -> Vec<u8> {
    const SAID: &[u8] = b"INTERNAL_ERROR";
    let mut method = vec![0, 10, 0, 50];
    method.extend(541_u16.to_be_bytes());
    method.push(u8::try_from(SAID.len()).expect("it is short"));
    method.extend(SAID);
    method.extend([0, 50, 0, 10]);
    let mut frame = vec![1, 0, 0];
    frame.extend(u32::try_from(method.len()).expect("it is short").to_be_bytes());
    frame.extend(method);
    frame.push(0xCE);
    frame
}

/// Passes everything on between a worker and the broker, until the worker declares that queue.
async fn relay(mut worker: TcpStream, broker_port: u16, cuts: &AtomicUsize) -> std::io::Result<()> {
    let mut broker = TcpStream::connect(("127.0.0.1", broker_port)).await?;
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = worker.read(&mut up) => {
                let said = &up[..read?];
                if said.is_empty() {
                    return Ok(());
                }
                let declares = said.windows(QUEUE.len()).any(|window| window == QUEUE);
                if declares && cuts.load(Ordering::Relaxed) < CUTS {
                    cuts.fetch_add(1, Ordering::Relaxed);
                    return worker.write_all(&internal_error()).await;
                }
                broker.write_all(said).await?;
            }
            read = broker.read(&mut down) => {
                let said = &down[..read?];
                if said.is_empty() {
                    return Ok(());
                }
                worker.write_all(said).await?;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_cut_off_while_it_declares_comes_again() {
    let Some(node) = ours() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (cuts, broker_port) = (Arc::new(AtomicUsize::new(0)), node.port());
    let counted = Arc::clone(&cuts);
    tokio::spawn(async move {
        while let Ok((worker, _)) = listener.accept().await {
            let cuts = Arc::clone(&counted);
            tokio::spawn(async move { relay(worker, broker_port, &cuts).await });
        }
    });
    let world = World::new().await;
    let url = world.place.url(User::Worker).replace(&format!(":{broker_port}/"), &format!(":{port}/"));
    let worker = world.worker_with(&Start { variables: &[("TEST_AMQP_URL", &url)], ..Start::default() });
    assert_eq!(cuts.load(Ordering::Relaxed), CUTS);
    // All connections declare at once, and the end of the AMQP connection fails each of them.
    let stderr = worker.process.stderr();
    let is_said = |line: &&str| {
        line.contains("failed to declare `okta.invocations.") && line.contains("`: INTERNAL_ERROR")
    };
    assert_eq!(stderr.lines().filter(is_said).count(), CUTS, "{stderr}");
    let mut caller = world.caller().await;
    let reply = caller.call(&Message::new("prod.bulk", "list_groups", &json!({"limit": 1}))).await;
    assert_eq!(reply.body()["status"], "succeeded");
    worker.stop();
}
