//! `quota`: what a namespace may hold.

use watchkeep::Quota;

use super::{Access, open};
use crate::args::{Global, SetQuota};
use crate::exit::{Failure, Result, USAGE};
use crate::output::{Out, grouped};

pub(super) fn quota(global: &Global, args: &SetQuota, out: &mut Out) -> Result<()> {
    if global.namespace.is_none() {
        let what = "a quota belongs to a namespace; name it with --namespace";
        return Err(Failure::new(USAGE, what.to_owned()));
    }
    let limits = [args.max_keys, args.max_groups, args.max_bytes];
    if args.none || limits.iter().any(Option::is_some) {
        let [max_keys, max_groups, max_bytes] = limits.map(Option::unwrap_or_default);
        return Ok(open(global, Access::Write)?.set_quota(Quota { max_keys, max_groups, max_bytes })?);
    }
    let quota = open(global, Access::Read)?.quota()?.unwrap_or_default();
    if out.is_json() {
        return out.object(&watchkeep::json::quota(&quota));
    }
    let limit = |limit: u64| if limit == 0 { "no limit".to_owned() } else { grouped(limit) };
    out.fields(&[
        ("keys", limit(quota.max_keys)),
        ("groups", limit(quota.max_groups)),
        ("bytes", limit(quota.max_bytes)),
    ])
}
