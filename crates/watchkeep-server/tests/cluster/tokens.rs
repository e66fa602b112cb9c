//! Tokens of a store in a cluster: made through one server, good at all, and revoked at all.

use serde_json::json;
use watchkeep_server::{Access, Created, Grant, Rights};

use super::support::{Result, Stream};
use super::support_entries::Hub;
use super::{members, patient, place, prefix, until};

/// A server as of a machine of its own.
struct Machine {
    access: Access,
    hub: Hub,
}

impl Machine {
    fn at(place: &str) -> Result<Machine> {
        let store = patient().connect(place)?;
        let access = Access::open(&store)?;
        let (asked, again) = (access.clone(), place.to_owned());
        let hub = Hub::with(&store, |server| {
            server.ask_for_tokens(asked).reopen_with(move || patient().connect(&again))
        });
        Ok(Machine { access, hub })
    }

    fn status(&self, bearer: Option<&str>) -> u16 {
        let bearer = bearer.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.iter().map(|bearer| ("Authorization", bearer.as_str())).collect();
        self.hub.ask("GET", "/v1/groups", &headers, b"").status
    }
}

fn bearer(created: &Created) -> String {
    format!("Bearer {}", created.secret())
}

#[test]
fn a_token_is_good_at_every_server_and_revoked_at_every_server() -> Result {
    let place = place()?;
    let (one, other) = (Machine::at(&place)?, Machine::at(&place)?);
    assert_eq!((one.status(None), other.status(None)), (200, 200), "there is no token yet");
    let mut anybody = Stream::open(other.hub.address, "snapshot=auto", &[])?;
    anybody.upto("ready")?;

    let token = one.access.create(Grant::new(Rights::ALL))?;
    // Whoever bears it is let in at once, and nobody else once the other server has heard of it.
    assert_eq!((one.status(Some(token.secret())), other.status(Some(token.secret()))), (200, 200));
    assert_eq!(one.status(None), 401);
    until("the other server asks for tokens", || other.status(None) == 401)?;
    assert_eq!(anybody.upto("bye")?.1.data, json!({ "reason": "unauthorized" }));

    let kept = other.access.create(Grant::new(Rights::ALL))?;
    assert_eq!(one.access.list()?.len(), 2);
    let mut streams = Vec::new();
    for (machine, token) in [(&one, &token), (&other, &token), (&one, &kept)] {
        let asked = [("Authorization", bearer(token))];
        let asked = asked.each_ref().map(|(name, value)| (*name, value.as_str()));
        let mut stream = Stream::open(machine.hub.address, "snapshot=auto", &asked)?;
        stream.upto("ready")?;
        streams.push(stream);
    }
    // As by the command line, which is a process of its own.
    let revoked = Access::open(&patient().connect(&place)?)?.revoke(&token.token.id)?;
    assert!(revoked);
    assert_eq!((one.status(Some(token.secret())), other.status(Some(token.secret()))), (401, 401));
    for stream in streams.iter_mut().take(2) {
        assert_eq!(stream.upto("bye")?.1.data, json!({ "reason": "revoked" }));
    }
    assert_eq!((one.status(Some(kept.secret())), other.status(Some(kept.secret()))), (200, 200));
    let written = one.hub.ask(
        "PUT",
        "/v1/entry?group=g&key=k",
        &[("Authorization", bearer(&kept).as_str())],
        b"still told",
    );
    assert_eq!(written.status, 204, "{written:?}");
    assert_eq!(streams[2].changes(1)?[0].data["value"], "still told");
    Ok(())
}

#[test]
fn a_ticket_of_one_server_opens_a_stream_at_another() -> Result {
    let place = place()?;
    let (one, other) = (Machine::at(&place)?, Machine::at(&place)?);
    let token = one.access.create(Grant::new(Rights::ALL))?;
    let bearer = bearer(&token);
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let sold = one.hub.ask("POST", "/v1/tickets", &headers, br#"{"group":"g"}"#);
    let ticket = sold.json()["ticket"].as_str().ok_or("no ticket")?.to_owned();
    let mut stream = Stream::open(other.hub.address, &format!("ticket={ticket}"), &[])?;
    stream.upto("ready")?;
    assert!(one.access.revoke(&token.token.id)?);
    assert_eq!(stream.upto("bye")?.1.data, json!({ "reason": "revoked" }));
    assert_eq!(Stream::open(other.hub.address, &format!("ticket={ticket}"), &[])?.status, 401);
    Ok(())
}

#[test]
fn credentials_that_are_removed_with_their_store_are_opened_again() -> Result {
    let (members, prefix) = (members()?, prefix());
    let place = format!("etcd://{members}/{prefix}");
    let (closed, open) = (Machine::at(&place)?, Machine::at(&place)?);
    closed.access.create(Grant::new(Rights::ALL))?;
    until("both ask for tokens", || open.status(None) == 401)?;
    let done = std::process::Command::new("etcdctl")
        .args(["--endpoints", &members, "del", "--prefix", &prefix])
        .env("ETCDCTL_API", "3")
        .output()?;
    assert!(done.status.success(), "{done:?}");
    // As by the command line. Whoever asked for tokens still does, and these are good.
    let store = patient().connect(&place)?;
    let token = Access::open(&store)?.create(Grant::new(Rights::ALL))?;
    for machine in [&closed, &open] {
        until("the new token is good", || machine.status(Some(token.secret())) == 200)?;
        assert_eq!(machine.status(None), 401);
    }
    Ok(())
}

#[test]
fn an_address_with_a_slash_at_its_end_has_the_same_tokens() -> Result {
    let place = place()?;
    let made = Machine::at(&format!("{place}/"))?;
    let token = made.access.create(Grant::new(Rights::ALL))?;
    let other = Machine::at(&place)?;
    assert!(other.access.is_guarded());
    assert_eq!((other.status(None), other.status(Some(token.secret()))), (401, 200));
    Ok(())
}
