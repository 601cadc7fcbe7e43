//! A stream to one address of a node, with or without TLS.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_rs::traits::Reactor;
use async_rs::{Runtime, Tokio, TokioRuntime};
use lapin::tcp::{AsyncTcpStream, OwnedTLSConfig, TLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties};
use tokio::time::timeout;

/// The timeout for connecting to one address: the next address should not wait for a host that is off.
const TCP_MAX: Duration = Duration::from_secs(4);

/// Opens a connection to one address of a node.
pub(in crate::rabbit) async fn open(
    uri: AMQPUri,
    address: SocketAddr,
    options: ConnectionProperties,
    tls: OwnedTLSConfig,
) -> lapin::Result<Connection> {
    let connect = async move |uri: AMQPUri, _: TokioRuntime| Ok(stream(&uri, address, tls.as_ref()).await?);
    Connection::connector(uri, Runtime::tokio_current(), connect, options).await
}

/// Opens a stream to one address of a node. The certificate must match the host in the URI.
///
/// # Errors
/// If there is no stream in time, or the node's certificate is not trusted.
pub(in crate::rabbit) async fn stream(
    uri: &AMQPUri,
    address: SocketAddr,
    tls: TLSConfig<'_, '_, '_>,
) -> io::Result<Stream> {
    let runtime = Runtime::tokio_current();
    let reached = timeout(TCP_MAX, Stream::connect(&runtime, address)).await;
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {TCP_MAX:?}"));
    let stream = reached.unwrap_or_else(|_| Err(late()))?;
    match uri.scheme {
        AMQPScheme::AMQP => Ok(stream),
        AMQPScheme::AMQPS => stream.into_tls(&uri.authority.host, tls).await,
    }
}

/// A stream to the broker, with or without TLS.
type Stream = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;
