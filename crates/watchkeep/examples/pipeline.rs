//! Asynchronous calls: writes that are queued together are committed together. The runtime here is ten lines; any
//! other does.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use futures_core::Stream;
use watchkeep::Store;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::open_in_memory()?;
    let mut watcher = store.watch("numbers", "*");
    let queue = store.to_async();

    block_on(async {
        // Calling queues the write; awaiting waits for its commit.
        let writes: Vec<_> = (0..100).map(|number| queue.set("numbers", &number.to_string(), "")).collect();
        for write in writes {
            write.await?;
        }
        // A watcher is a stream.
        for _ in 0..100 {
            next(&mut watcher).await.ok_or("the watch ended")??;
        }
        println!("100 writes, 100 events, {} keys", queue.count("numbers").await?);
        Ok(())
    })
}
