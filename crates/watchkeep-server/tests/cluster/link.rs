//! The way to a cluster, which can be cut and mended: what goes through it is passed on as it is.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct State {
    is_cut: bool,
    sockets: Vec<TcpStream>,
}

/// A way to one member.
pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Link {
    pub(crate) fn to(member: &str) -> io::Result<Link> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let (address, member) = (listener.local_addr()?, member.to_owned());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        // It ends with the process: it waits for connections, and nothing else.
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                // A connection that is not passed on is closed at once.
                drop(pass_on(near, &member, &shared));
            }
        });
        Ok(Link { address, state })
    }

    /// Nothing goes through any more, and whoever is connected is cut off.
    pub(crate) fn cut(&self) {
        let mut state = lock(&self.state);
        state.is_cut = true;
        for socket in state.sockets.drain(..) {
            // The other side may have closed it.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn mend(&self) {
        lock(&self.state).is_cut = false;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cut();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pass_on(near: TcpStream, member: &str, state: &Mutex<State>) -> io::Result<()> {
    let mut state = lock(state);
    if state.is_cut {
        return Ok(());
    }
    let far = TcpStream::connect(member)?;
    state.sockets.extend([near.try_clone()?, far.try_clone()?]);
    for (mut from, mut to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
        std::thread::spawn(move || {
            // However it ends, the other direction ends as well.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}
