//! A connection whose other end must go on taking what is written to it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::admission::Seat;
use crate::settings::Limit;

/// Fails once nothing could be written for the time of a stall: who stopped reading comes back, if at all, with its bookmark.
pub(crate) struct Stalls<T> {
    inner: T,
    /// Of the connection, for as long as it is open.
    seat: Seat,
    /// Since the other end stopped.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<T> Stalls<T> {
    pub(crate) fn new(inner: T, seat: Seat) -> Stalls<T> {
        Stalls { inner, seat, timer: None }
    }

    fn judge<R>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if done.is_ready() {
            self.timer = None;
            return done;
        }
        let time = self.seat.admission.time(Limit::StallSeconds);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(time)));
        timer.as_mut().poll(cx).map(|()| {
            self.seat.admission.reach(Limit::StallSeconds);
            Err(io::ErrorKind::TimedOut.into())
        })
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Stalls<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Stalls<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.judge(cx, done)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_flush(cx);
        self.judge(cx, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.judge(cx, done)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;
    use crate::admission::Admission;
    use crate::settings::{Limits, Reached};

    #[tokio::test(start_paused = true)]
    async fn who_stops_reading_is_dropped_and_who_is_slow_is_not() -> io::Result<()> {
        let admission = Admission::new(Limits::default(), Reached::default());
        let stall_time = admission.time(Limit::StallSeconds);
        let seat = || admission.seat(None).ok_or(io::ErrorKind::Other);
        let (mut other, ours) = duplex(8);
        let first = seat()?;
        let writing = tokio::spawn(async move { Stalls::new(ours, first).write_all(&[b'x'; 24]).await });
        for _ in 0..2 {
            sleep(stall_time / 2).await;
            other.read_exact(&mut [0; 8]).await?;
        }
        writing.await??;

        let (_other, ours) = duplex(8);
        let stopped = Instant::now();
        let failed = Stalls::new(ours, seat()?).write_all(&[b'x'; 24]).await;
        assert_eq!(failed.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        assert!(stopped.elapsed() >= stall_time);
        Ok(())
    }
}
