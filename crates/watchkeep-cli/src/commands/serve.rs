//! `serve`: the store on the network.

use std::io;

use serde_json::json;
use watchkeep::Options;
use watchkeep_server::{Access as Tokens, Listen, Server, may_listen};

use super::{Access, open_with, signals};
use crate::args::{Global, Serve};
use crate::exit::{FAILURE, Failure, Result, USAGE};
use crate::output::Out;

pub(super) fn serve(global: &Global, args: &Serve, out: &mut Out) -> Result<()> {
    let options = match args.durability {
        Some(how) => Options::new().durability(how.into()),
        None => Options::new(),
    };
    let store = open_with(global, Access::Write, options.clone())?;
    let tokens = Tokens::open_with(&store, Options::new().network(global.network))?;
    may_listen(&args.listen, false, tokens.is_guarded(), args.exposure.insecure_listen)
        .map_err(|what| Failure::new(USAGE, what))?;
    // One thread: while one core is enough, it serves more clients than several would.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::new(FAILURE, format!("the server cannot start: {error}")))?;
    let refused = |error| refused(&args.listen, &error);
    runtime.block_on(async {
        let server = Server::bind_anywhere(&store, &args.listen).await.map_err(refused)?;
        let server = server.ask_for_tokens(tokens).hosts(args.exposure.host.iter().map(String::as_str));
        let again = global.clone();
        let server = server.reopen_with(move || {
            open_with(&again, Access::Change, options.clone()).map_err(|error| error.to_string())
        });
        let (closer, drain) = (server.closer(), args.drain);
        signals::on_end(move || closer.drain(drain))?;
        if out.is_json() {
            out.object(&json!({ "url": server.url() }))?;
        } else {
            out.line(server.url())?;
        }
        out.flush()?;
        server.run().await;
        Ok(())
    })
}

fn refused(listen: &Listen, error: &io::Error) -> Failure {
    let what = match (error.kind(), listen) {
        (io::ErrorKind::AddrInUse, Listen::Tcp(_)) => {
            format!("{listen} is in use; name another with --listen, such as 127.0.0.1:0 for a free port")
        }
        (io::ErrorKind::AddrInUse, Listen::Unix(_)) => {
            format!("{listen} is in use; end the server there, or name another socket with --listen")
        }
        (io::ErrorKind::AlreadyExists, Listen::Unix(_)) => {
            format!(
                "{listen} cannot be listened on: {error}; move it away, or name another socket with --listen"
            )
        }
        _ => format!("{listen} cannot be listened on: {error}; name another with --listen"),
    };
    Failure::new(FAILURE, what)
}
