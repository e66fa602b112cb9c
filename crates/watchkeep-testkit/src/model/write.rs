//! What writes do to the map.

use std::collections::{BTreeMap, BTreeSet};

use watchkeep::{ErrorKind, Kind, Limits, MAX_DEADLINE_MS, Quota, QuotaLimit, Revision, Timestamp, Value};

use super::{Model, PROVISIONAL};
use crate::ops::{Condition, Outcome, Place, Refusal, Step, Ttl, Write};
use crate::record::{Cell, Seen, State};

/// The map while a step is made up.
pub(super) struct Scratch<'m> {
    pub(super) state: State,
    pub(super) rows: Vec<Seen>,
    pub(super) step: &'m Step,
    pub(super) now: Timestamp,
    label: &'m str,
    limits: Limits,
    quotas: &'m BTreeMap<String, Quota>,
    before: Revision,
}

impl<'m> Scratch<'m> {
    pub(super) fn new(model: &'m Model, step: &'m Step, label: &'m str, now: Timestamp) -> Scratch<'m> {
        let (state, limits, before) = (model.state.clone(), model.limits, model.last());
        Scratch { state, rows: Vec::new(), step, now, label, limits, quotas: &model.quotas, before }
    }

    /// The revision of the last change so far.
    pub(super) fn last(&self) -> Revision {
        self.rows.last().map_or(self.before, |row| row.revision)
    }

    /// All conditions first, then the writes without them.
    pub(super) fn batch(&mut self, writes: &[Write]) -> Result<Vec<Outcome>, Refusal> {
        if writes.iter().any(|write| matches!(write, Write::DeletePrefix(prefix) if prefix.is_empty())) {
            return Err(Refusal::Kind(ErrorKind::InvalidArgument));
        }
        let conditions = writes.iter().filter_map(|write| match write {
            Write::Set { place, condition, .. } | Write::Delete { place, condition }
                if matches!(condition, Condition::Absent | Condition::Revision(_)) =>
            {
                Some((place, *condition))
            }
            _ => None,
        });
        let mut unmet = Vec::new();
        for (at, (Place { group, key }, condition)) in conditions.enumerate() {
            let found = self.live(&self.step.full(group), key).map(|cell| cell.revision);
            if hold(condition, found).is_err() {
                unmet.push((at, found));
            }
        }
        if !unmet.is_empty() {
            return Err(Refusal::Unmet(unmet));
        }
        let mut outcomes = Vec::new();
        for write in writes {
            let mut write = write.clone();
            if let Write::Set { condition, .. } | Write::Delete { condition, .. } = &mut write {
                *condition = Condition::Always;
            }
            outcomes.push(match self.write(&write)? {
                Outcome::Done => Outcome::At(self.last()),
                outcome => outcome,
            });
        }
        Ok(outcomes)
    }

    pub(super) fn write(&mut self, write: &Write) -> Result<Outcome, Refusal> {
        Ok(match write {
            Write::Set { place, value, ttl, condition, content_type } => {
                self.set(place, value, *ttl, *condition, content_type.as_ref())?;
                Outcome::Done
            }
            Write::Delete { place: Place { group, key }, condition } => {
                let group = self.step.full(group);
                let found = self.live(&group, key).map(|cell| cell.revision);
                hold(*condition, found)?;
                if let Some(previous) = found {
                    let previous = Some(previous);
                    self.log(Seen { previous, ..self.row(Kind::Delete, &group, Some(key)) });
                }
                Outcome::Was(found.is_some())
            }
            Write::DeleteGroup(group) => Outcome::Number(self.delete_group(&self.step.full(group))),
            Write::DeletePrefix(prefix) => {
                let prefix = self.step.full(prefix);
                let groups: Vec<String> = self
                    .state
                    .groups()
                    .filter(|group| group.starts_with(&prefix))
                    .map(str::to_owned)
                    .collect();
                Outcome::Number(groups.iter().map(|group| self.delete_group(group)).sum())
            }
            Write::Touch(place, millis) => {
                let deadline = self.deadline(*millis)?;
                Outcome::Was(self.touch(place, Some(deadline)))
            }
            Write::Persist(place) => Outcome::Was(self.touch(place, None)),
        })
    }

    fn set(
        &mut self,
        Place { group, key }: &Place,
        value: &Value,
        ttl: Ttl,
        condition: Condition,
        content_type: Option<&String>,
    ) -> Result<(), Refusal> {
        let group = self.step.full(group);
        let Limits { group: group_limit, key: key_limit, value: value_limit } = self.limits;
        if group.len() > group_limit || key.len() > key_limit || value.len() > value_limit {
            return Err(Refusal::Kind(ErrorKind::TooLarge));
        }
        let found = self.live(&group, key).cloned();
        hold(condition, found.as_ref().map(|cell| cell.revision))?;
        let deadline = match ttl {
            Ttl::Clear => None,
            Ttl::Keep => found.as_ref().and_then(|cell| cell.deadline),
            Ttl::For(millis) => Some(self.deadline(millis)?),
            Ttl::Until(deadline) => Some(self.ahead(deadline.as_millis())?),
        };
        self.take_place(&group, key, value, found.as_ref())?;
        let row = self.row(Kind::Set, &group, Some(key));
        let (value, content_type) = (Some(value.clone()), content_type.cloned());
        let previous = found.map(|cell| cell.revision);
        self.log(Seen { value, content_type, deadline, previous, ..row });
        Ok(())
    }

    /// What counts against a quota is what is not due: what is due makes room before a write is refused.
    fn take_place(&self, group: &str, key: &str, value: &Value, found: Option<&Cell>) -> Result<(), Refusal> {
        let Some((namespace, _)) = group.split_once(':') else { return Ok(()) };
        let Some(quota) = self.quotas.get(namespace) else { return Ok(()) };
        let size = |key: &str, value: &Value| number(key.len() + value.len());
        let (mut groups, mut keys, mut bytes) = (BTreeSet::new(), 0, 0);
        let inside = |name: &str| name.strip_prefix(namespace).is_some_and(|rest| rest.starts_with(':'));
        for (name, key, cell) in
            self.state.cells().filter(|(name, _, cell)| inside(name) && !cell.is_due(self.now))
        {
            groups.insert(name);
            keys += 1;
            bytes += size(key, &cell.value);
        }
        let Quota { max_keys, max_groups, max_bytes } = *quota;
        let before = [keys, number(groups.len()), bytes];
        groups.insert(group);
        let freed = found.map_or(0, |cell| size(key, &cell.value));
        let after =
            [keys + u64::from(found.is_none()), number(groups.len()), bytes + size(key, value) - freed];
        let limits =
            [(QuotaLimit::Keys, max_keys), (QuotaLimit::Groups, max_groups), (QuotaLimit::Bytes, max_bytes)];
        for (((limit, allowed), before), after) in limits.into_iter().zip(before).zip(after) {
            if allowed > 0 && after > allowed && after > before {
                return Err(Refusal::Quota(limit, allowed, after));
            }
        }
        Ok(())
    }

    fn delete_group(&mut self, group: &str) -> u64 {
        let live = number(self.state.group(group).filter(|(_, cell)| !cell.is_due(self.now)).count());
        if live > 0 {
            self.log(self.row(Kind::DeleteGroup, group, None));
        }
        live
    }

    fn touch(&mut self, Place { group, key }: &Place, deadline: Option<Timestamp>) -> bool {
        let group = self.step.full(group);
        let Some(found) = self.live(&group, key) else { return false };
        if found.deadline != deadline {
            self.log(Seen { deadline, ..self.row(Kind::Touch, &group, Some(key)) });
        }
        true
    }

    fn live(&self, group: &str, key: &str) -> Option<&Cell> {
        self.state.cell(group, key).filter(|cell| !cell.is_due(self.now))
    }

    fn deadline(&self, millis: u64) -> Result<Timestamp, Refusal> {
        self.ahead(self.now.as_millis().saturating_add(i64::try_from(millis).unwrap_or(i64::MAX)))
    }

    fn ahead(&self, deadline: i64) -> Result<Timestamp, Refusal> {
        if deadline > self.now.as_millis() && deadline <= MAX_DEADLINE_MS {
            Ok(Timestamp::from_millis(deadline))
        } else {
            Err(Refusal::Kind(ErrorKind::InvalidArgument))
        }
    }

    fn row(&self, kind: Kind, group: &str, key: Option<&str>) -> Seen {
        let revision = Revision::new(PROVISIONAL + number(self.rows.len()));
        Seen {
            revision,
            commit: revision,
            kind,
            group: group.to_owned(),
            key: key.map(str::to_owned),
            value: None,
            content_type: None,
            deadline: None,
            previous: None,
            previous_value: None,
            origin: Some(self.label.to_owned()),
            timestamp: self.now,
            snapshot: false,
        }
    }

    fn log(&mut self, row: Seen) {
        if let Some(key) = &row.key
            && self.live(&row.group, key).is_none()
        {
            // What is due is gone before anything else happens to its key.
            self.state.take(&row.group, key);
        }
        self.state.apply(&row);
        self.rows.push(row);
    }
}

fn hold(condition: Condition, found: Option<Revision>) -> Result<(), Refusal> {
    let holds = match condition {
        Condition::Absent => found.is_none(),
        Condition::Revision(revision) => found == Some(revision),
        Condition::Always | Condition::Current | Condition::Stale => true,
    };
    if holds { Ok(()) } else { Err(Refusal::Conflict(found)) }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
