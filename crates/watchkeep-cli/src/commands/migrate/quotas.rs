//! Quotas: those of the source, and no others.

use std::collections::BTreeSet;

use watchkeep::{ErrorKind, Quota, Store};

use super::Migration;
use crate::exit::Result;

/// What stands between a namespace and the name of a group.
const SEPARATOR: char = ':';

/// All namespaces that may have a quota in one of the stores. A cluster lists no quotas: there they are those that have a
/// group.
pub(super) fn namespaces(source: &Store, target: &Store) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for store in [source, target] {
        match store.quotas() {
            Ok(quotas) => all.extend(quotas.into_iter().map(|(namespace, _)| namespace)),
            Err(error) if error.kind() == ErrorKind::InvalidArgument => {}
            Err(error) => return Err(error.into()),
        }
        for group in store.groups("") {
            if let Some((namespace, _)) = group?.split_once(SEPARATOR) {
                all.insert(namespace.to_owned());
            }
        }
    }
    // A group of the whole store may have a colon in its name and no namespace before it.
    all.retain(|namespace| source.scoped(namespace).is_ok());
    Ok(all)
}

/// Sets the quota of a namespace where it is another.
pub(super) fn set(target: &Store, namespace: &str, quota: Quota) -> Result<()> {
    let tenant = target.scoped(namespace)?;
    if tenant.quota()?.unwrap_or_default() != quota {
        tenant.set_quota(quota)?;
    }
    Ok(())
}

impl Migration {
    /// Gives every namespace the quota that it has in the source.
    pub(super) fn copy_quotas(&mut self) -> Result<()> {
        for namespace in namespaces(&self.source, &self.target)? {
            let quota = self.source.scoped(&namespace)?.quota()?;
            set(&self.target, &namespace, quota.unwrap_or_default())?;
            self.summary.quotas += u64::from(quota.is_some());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_that_only_the_target_has_is_found_with_and_without_groups() -> watchkeep::Result<()> {
        let (source, target) = (Store::open_in_memory()?, Store::open_in_memory()?);
        source.set("tenant:config", "k", "v")?;
        source.set("a b:config", "k", "v")?;
        let quota = Quota { max_keys: 7, ..Quota::default() };
        target.scoped("empty")?.set_quota(quota)?;
        let found = namespaces(&source, &target).unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["empty", "tenant"]);
        set(&target, "empty", Quota::default()).unwrap();
        assert_eq!(target.quotas()?, []);
        Ok(())
    }
}
