//! The transport: lines of JSON-RPC over stdin and stdout.
//!
//! The library ignores a line that is not JSON, and its sender waits for ever; this transport answers it with the
//! JSON-RPC error -32700. It buffers at most one line.

use rmcp::ErrorData;
use rmcp::service::{RoleServer, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use rmcp::transport::async_rw::AsyncRwTransport;
use serde_json::value::RawValue;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
    DuplexStream, duplex,
};
use tokio::sync::{mpsc, watch};

/// The longest line: a body has at most 1 MiB, and JSON in JSON is longer because of its escapes.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The buffer size between this transport and the library.
const PASSED_BYTES: usize = 64 * 1024;

/// The capacity for lines that are not JSON and have no answer yet.
const UNPARSEABLE_MAX: usize = 16;

/// The transport to one client.
pub(super) struct LineTransport<W: AsyncWrite> {
    inner: AsyncRwTransport<RoleServer, DuplexStream, W>,
    unparseable: mpsc::Receiver<()>,
}

impl<W: AsyncWrite + Send + Unpin + 'static> LineTransport<W> {
    /// Reads lines from `input` and writes to `output`. The second value turns true at the end of the input.
    pub fn new(input: impl AsyncRead + Send + Unpin + 'static, output: W) -> (Self, watch::Receiver<bool>) {
        let (passed, taken) = duplex(PASSED_BYTES);
        let (faults, unparseable) = mpsc::channel(UNPARSEABLE_MAX);
        let (ends, ended) = watch::channel(false);
        tokio::spawn(async move {
            pass_on(input, passed, faults).await;
            ends.send_replace(true);
        });
        (Self { inner: AsyncRwTransport::new_server(taken, output), unparseable }, ended)
    }
}

/// The kind of an input line.
#[derive(Debug, PartialEq, Eq)]
enum InputLine {
    Json,
    Blank,
    Unparseable,
    End,
}

/// Passes lines on until the input ends, and reports those that are not JSON.
async fn pass_on(input: impl AsyncRead + Unpin, mut passed: DuplexStream, faults: mpsc::Sender<()>) {
    let (mut input, mut line) = (BufReader::new(input), Vec::new());
    loop {
        let is_read = match next(&mut input, &mut line).await {
            InputLine::Json => passed.write_all(&line).await.is_ok(),
            InputLine::Blank => true,
            InputLine::Unparseable => faults.send(()).await.is_ok(),
            InputLine::End => false,
        };
        if !is_read {
            return;
        }
    }
}

/// Reads the next line, with its line end.
async fn next(input: &mut BufReader<impl AsyncRead + Unpin>, line: &mut Vec<u8>) -> InputLine {
    line.clear();
    let mut limited = (&mut *input).take(LINE_BYTES_MAX as u64);
    let Ok(_) = limited.read_until(b'\n', line).await else { return InputLine::End };
    if line.is_empty() {
        return InputLine::End;
    }
    if line.len() == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
        return discard(input, line).await;
    }
    if line.last() != Some(&b'\n') {
        line.push(b'\n'); // the last one need not end
    }
    let bare = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii();
    match serde_json::from_slice::<&RawValue>(bare) {
        _ if bare.is_empty() => InputLine::Blank,
        Ok(_) => InputLine::Json,
        Err(_) => InputLine::Unparseable,
    }
}

/// Skips the rest of a line that is too long.
async fn discard(input: &mut BufReader<impl AsyncRead + Unpin>, line: &mut Vec<u8>) -> InputLine {
    while line.last() != Some(&b'\n') {
        line.clear();
        let mut limited = (&mut *input).take(LINE_BYTES_MAX as u64);
        if !matches!(limited.read_until(b'\n', line).await, Ok(read) if read > 0) {
            break;
        }
    }
    InputLine::Unparseable
}

impl<W: AsyncWrite + Send + Unpin + 'static> Transport<RoleServer> for LineTransport<W> {
    type Error = std::io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        self.inner.send(item)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            tokio::select! {
                biased; // a bad line came before whatever message, or end of the input, is behind it
                Some(()) = self.unparseable.recv() => {
                    let fault = ErrorData::parse_error("the line is not JSON", None);
                    // Sent by a task of its own: this future may be dropped at any moment.
                    tokio::spawn(self.inner.send(TxJsonRpcMessage::<RoleServer>::error(fault, None)));
                }
                message = self.inner.receive() => return message,
            }
        }
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.inner.close().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(input: &[u8]) -> Vec<(InputLine, usize)> {
        let (mut input, mut line, mut seen) = (BufReader::new(input), Vec::new(), Vec::new());
        loop {
            let what = next(&mut input, &mut line).await;
            if what == InputLine::End {
                return seen;
            }
            seen.push((what, line.len()));
        }
    }

    #[tokio::test]
    async fn lines_are_json_blank_or_unparseable() {
        let text = b"{\"a\":1}\n\r\n{\n\xef\xbb\xbf[]\r\n\xff\nnull";
        let (json, bad) = (|bytes| (InputLine::Json, bytes), |bytes| (InputLine::Unparseable, bytes));
        assert_eq!(lines(text).await, [json(8), (InputLine::Blank, 2), bad(2), json(7), bad(2), json(5)]);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_passed_over() {
        let long = [b"\"", &b"x".repeat(2 * LINE_BYTES_MAX + 5)[..], b"\"\n1\n"].concat();
        let seen = lines(&long).await;
        assert_eq!(
            seen.iter().map(|(what, _)| what).collect::<Vec<_>>(),
            [&InputLine::Unparseable, &InputLine::Json]
        );
    }

    #[tokio::test]
    async fn a_line_that_is_not_json_is_answered() {
        let (output, mut written) = duplex(PASSED_BYTES);
        let input = &b"{\"jsonrpc\":\n{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\"}\n"[..];
        let (mut transport, mut ended) = LineTransport::new(input, output);
        let message = transport.receive().await.expect("the second line is a request");
        assert!(matches!(message, RxJsonRpcMessage::<RoleServer>::Request(_)));
        assert!(transport.receive().await.is_none());
        let _ = ended.wait_for(|is_over| *is_over).await;
        let mut answer = String::new();
        BufReader::new(&mut written).read_line(&mut answer).await.unwrap();
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((&answer["error"]["code"], answer.get("result")), (&serde_json::json!(-32700), None));
    }
}
