//! Requests to a server that `serve` started, written out.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Far longer than anything takes that goes right.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Begins a request to the server at a URL. Each of the headers ends its line.
pub(crate) fn begin(url: &str, head: &str, headers: &str, body: &str) -> BufReader<TcpStream> {
    let host = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix('/')).unwrap();
    let mut socket = TcpStream::connect(host).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let length = body.len();
    write!(
        socket,
        "{head} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
    .unwrap();
    BufReader::new(socket)
}
