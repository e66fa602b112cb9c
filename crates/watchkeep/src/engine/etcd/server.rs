//! Which servers have faults that no client mends.

/// Which versions of the servers are sound, of each line that is maintained.
const SOUND: [(u64, u64, u64); 2] = [(3, 5, 28), (3, 6, 9)];

/// What is wrong with servers of a version, and which to take; none where nothing is known, or the version cannot be read.
pub(super) fn fault(version: &str) -> Option<&'static str> {
    let plain = version.split(['-', '+']).next()?;
    let mut parts = plain.split('.').map(|part| part.parse::<u64>().ok());
    let version = (parts.next()??, parts.next()??, parts.next()??);
    let is_sound =
        SOUND.iter().any(|sound| (version.0, version.1) == (sound.0, sound.1) && version >= *sound);
    let is_later = SOUND.last().is_some_and(|last| (version.0, version.1) > (last.0, last.1));
    (!is_sound && !is_later).then_some(
        "after a pause or a change of leader its members may answer reads with what is over, and there are known ways \
         around its access control; take etcd 3.5.28 or later, or 3.6.9 or later",
    )
}

/// Says so, where that is so.
pub(super) fn warn(version: &str) {
    if let Some(fault) = fault(version) {
        tracing::warn!("the cluster runs etcd {version}: {fault}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_versions_that_are_not_sound() {
        for bad in ["2.3.8", "3.3.27", "3.4.23", "3.4.44", "3.5.0", "3.5.27", "3.6.0", "3.6.8", "3.6.8-rc.1"]
        {
            assert!(fault(bad).is_some(), "{bad}");
        }
        for good in ["3.5.28", "3.5.40", "3.6.9", "3.6.10+deb1", "3.7.0", "4.0.0", "", "3.6", "later"] {
            assert!(fault(good).is_none(), "{good}");
        }
    }
}
