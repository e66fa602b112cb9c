//! A client of a hub as a stream: over one connection or, when it is cut off, over one after another.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use watchkeep::Revision;

use super::connection::{Came, Connection, Message, Query, Wire};
use super::message::{Said, revision};
use super::servers::Servers;
use super::weather::{Course, Weather};
use crate::record::{Beginning, Note};
use crate::surface::{Fault, Next, Stream, Wait};

/// How long the server may take to begin a stream.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often in a row a client comes back for nothing before it gives up.
const TRIES: usize = 1_000;
/// How often in a row it is cut off before it is told anything.
const CUTS: usize = 20;

/// Where a hub is, and what its clients suffer there.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) wire: Wire,
    /// The handle's, whose server its clients go to unless they have faults.
    pub(super) number: u64,
    pub(super) servers: Arc<Servers>,
    pub(super) weather: Arc<Weather>,
}

/// Where a client is connected: the number of the handle whose server that is, and its address.
type At = (u64, SocketAddr);

/// A client, and where it stands.
#[derive(Debug)]
pub(super) struct Client {
    place: Place,
    fields: Vec<(&'static str, String)>,
    connection: Box<dyn Connection>,
    course: Option<Course>,
    at: At,
    /// Came with the connection, and is not looked at yet.
    first: Option<Message>,
    /// What it goes on from, if it has to.
    bookmark: Option<String>,
    /// Where the server must say that it goes on.
    resumes_at: Option<Revision>,
    /// It has been told that a snapshot begins.
    begun: bool,
    /// How often it came back since it was last told something.
    tries: usize,
    start: Revision,
    ended: bool,
}

impl Client {
    /// Begins a stream, of a snapshot that is no older than this revision.
    pub(super) fn begin(
        place: Place,
        fields: Vec<(&'static str, String)>,
        beginning: Beginning,
        now: Revision,
    ) -> Result<Client, Fault> {
        let mut course = place.weather.client();
        let (at, connection, first) = connect(&place, &fields, None, &mut course)?;
        let mut client = Client {
            place,
            fields,
            connection,
            course,
            at,
            first: None,
            bookmark: None,
            resumes_at: None,
            begun: false,
            tries: 0,
            start: now,
            ended: false,
        };
        match beginning {
            Beginning::Snapshot => client.first = Some(first),
            _ => match first.read()? {
                Said::Ready(at) => (client.start, client.bookmark) = (at, first.at),
                other => return Err(format!("instead of ready came {other:?}").into()),
            },
        }
        Ok(client)
    }

    /// What a message means, if it means something to a reader of the library's items.
    fn take(&mut self, message: Message) -> Option<Next> {
        if let Some(course) = &mut self.course {
            course.has_read(&self.place.weather);
        }
        let said = match message.read() {
            Ok(said) => said,
            Err(problem) => return Some(Next::Note(Note::Failed(problem))),
        };
        match &said {
            Said::Reset => self.bookmark = None,
            _ => self.bookmark = message.at.filter(|at| !at.is_empty()).or(self.bookmark.take()),
        }
        let note = match said {
            Said::Change(seen) => Note::Event(*seen),
            Said::Lagged(lagged) => Note::Lagged(lagged),
            Said::Ready(at) => match self.resumes_at.take() {
                Some(resumes_at) if resumes_at == at => return None,
                Some(other) => Note::Failed(format!("it goes on after {at}, and was asked to after {other}")),
                None => Note::Ready(at),
            },
            Said::Reset => {
                self.resumes_at = None;
                if !std::mem::replace(&mut self.begun, true) {
                    return None;
                }
                Note::Reset
            }
            Said::Heartbeat => return None,
            Said::Trouble if self.course.is_some() => return self.come_back(None),
            // Without faults nothing keeps the server from telling all.
            Said::Trouble => {
                self.ended = true;
                Note::Closed
            }
            // There are other servers. Of one that is not its own handle's, the end says nothing of what others wrote.
            Said::Ending if self.course.is_some() => return self.come_back(None),
            Said::Bye if self.at.0 != self.place.number => return self.come_back(None),
            Said::Bye | Said::Ending => {
                self.ended = true;
                return Some(Next::Ended);
            }
        };
        self.tries = 0;
        Some(Next::Note(note))
    }

    /// The connection is at its end: cut off, or dropped by the server. What is told when nobody comes back.
    fn come_back(&mut self, why: Option<io::Error>) -> Option<Next> {
        let weather = self.place.weather.clone();
        let spent = self.connection.tap().is_spent();
        let way_back = weather.way_back().filter(|_| self.course.is_some());
        if spent && (way_back.is_none() || weather.is_calm()) {
            // It is not cut off after all.
            self.connection.tap().cut_after(None);
            return None;
        }
        self.tries += 1;
        if way_back.is_none() || self.tries > TRIES {
            self.ended = true;
            return Some(match why {
                _ if self.tries > TRIES => Next::Note(Note::Failed("it is let in and sent away".to_owned())),
                None if self.course.is_none() => Next::Ended,
                Some(error) if self.course.is_none() => Next::Note(Note::Failed(error.to_string())),
                _ => Next::Note(Note::Interrupted),
            });
        }
        if spent {
            weather.was_cut();
        }
        weather.came_back();
        match connect(&self.place, &self.fields, self.bookmark.as_deref(), &mut self.course) {
            Ok((at, connection, first)) => {
                if std::mem::replace(&mut self.at, at) != at {
                    weather.moved();
                }
                (self.connection, self.first) = (connection, Some(first));
                self.resumes_at = self.bookmark.as_deref().and_then(revision);
                None
            }
            Err(error) => {
                self.ended = true;
                Some(Next::Note(Note::Failed(error.to_string())))
            }
        }
    }

    /// Stands still when it is time for that; whether it reads.
    fn reads(&mut self, within: Duration) -> bool {
        let Some(course) = &mut self.course else { return true };
        let (reads, stood_still) = course.stand_still(&self.place.weather, within);
        if stood_still && course.one_in(3) {
            // It goes without reading what waits for it.
            self.connection.tap().cut_after(Some(0));
        }
        reads
    }
}

/// Connects and asks, and waits for the first message; again, when it is cut off before that.
fn connect(
    place: &Place,
    fields: &[(&'static str, String)],
    bookmark: Option<&str>,
    course: &mut Option<Course>,
) -> io::Result<(At, Box<dyn Connection>, Message)> {
    for tries in 0.. {
        let Some(at) = place.servers.pick(place.number, course.as_mut()) else { break };
        let course = course.as_mut().filter(|_| tries < CUTS && !place.weather.is_calm());
        let (cut, as_header) = course.map_or((None, false), |course| (Some(course.cut()), course.one_in(2)));
        let query = Query { fields, bookmark, as_header };
        let asked = place.wire.ask(at.1, cut, &query, PATIENCE).and_then(|mut connection| {
            let came = connection.next(Some(PATIENCE))?;
            Ok((connection, came))
        });
        match asked {
            // Its server ended meanwhile, and may have said so.
            Err(_) | Ok((_, Came::End | Came::Nothing)) if !place.servers.has(at.1) => {}
            Ok((_, Came::Message(message))) if !place.servers.has(at.1) && message.is_an_end() => {}
            Ok((connection, Came::Message(message))) => return Ok((at, connection, message)),
            // A cut within the head shows as one thing or another.
            _ if cut.is_some() => {
                place.weather.was_cut();
                place.weather.came_back();
            }
            Ok((_, came)) => return Err(io::Error::other(format!("it does not begin: {came:?}"))),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("there is no server"))
}

impl Stream for Client {
    fn next(&mut self, wait: Wait) -> Next {
        let began = Instant::now();
        loop {
            if self.ended {
                return Next::Ended;
            }
            let within = match wait {
                Wait::No => None,
                Wait::Forever => Some(PATIENCE),
                Wait::Most(time) => match time.checked_sub(began.elapsed()) {
                    Some(left) => Some(left),
                    None => return Next::Pending,
                },
            };
            if !self.reads(within.unwrap_or_default()) {
                // It may be on its way.
                if wait == Wait::No {
                    return Next::Pending;
                }
                continue;
            }
            let came = match self.first.take() {
                Some(message) => Ok(Came::Message(message)),
                None => self.connection.next(within),
            };
            let next = match came {
                Ok(Came::Message(message)) => self.take(message),
                Ok(Came::Nothing) if self.connection.tap().is_spent() => self.come_back(None),
                Ok(Came::Nothing) if wait == Wait::No => return Next::Pending,
                Ok(Came::Nothing) => None,
                Ok(Came::End) => self.come_back(None),
                Err(error) => self.come_back(Some(error)),
            };
            if let Some(next) = next {
                return next;
            }
        }
    }

    fn start(&self) -> Revision {
        self.start
    }

    fn dropped(&self) -> u64 {
        0
    }
}
