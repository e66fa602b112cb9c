//! Operations as the engine takes them, under the names that stand in the file: the same for the store, a
//! transaction, and asynchronous calls.

use std::time::Duration;

use crate::engine::Op;
use crate::types::name::Scope;
use crate::types::value::Value;
use crate::types::writing::{DeleteOptions, SetOptions};

pub(super) fn set(scope: &Scope, group: &str, key: &str, value: Value, options: SetOptions) -> Op {
    let SetOptions { condition, ttl, content_type } = options;
    Op::Set { group: scope.full(group), key: key.to_owned(), value, ttl, condition, content_type }
}

pub(super) fn delete(scope: &Scope, group: &str, key: &str, options: &DeleteOptions) -> Op {
    Op::Delete { group: scope.full(group), key: key.to_owned(), condition: options.condition }
}

pub(super) fn delete_group(scope: &Scope, group: &str) -> Op {
    Op::DeleteGroup { group: scope.full(group) }
}

pub(super) fn delete_groups(scope: &Scope, prefix: &str) -> Op {
    Op::DeleteGroups { prefix: scope.full(prefix) }
}

pub(super) fn touch(scope: &Scope, group: &str, key: &str, ttl: Option<Duration>) -> Op {
    Op::Touch { group: scope.full(group), key: key.to_owned(), ttl }
}
