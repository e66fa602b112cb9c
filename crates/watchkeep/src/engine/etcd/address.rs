//! Where a cluster is, and how one gets in.

use std::fmt;

use crate::types::error::{Error, Reason, Result};

/// The port where none is named.
const PORT: u16 = 2379;

/// A cluster, and the prefix of a store in it.
#[derive(Debug, Clone)]
pub(super) struct Address {
    /// `host:port`, one or more.
    pub(super) members: Vec<String>,
    /// Ends with a slash.
    pub(super) prefix: String,
    pub(super) access: Access,
    /// How many bytes a member may take, where that is said.
    pub(super) quota: Option<u64>,
}

/// How one gets in. Never shown.
#[derive(Clone, Default)]
pub(super) struct Access {
    /// Name and password.
    pub(super) user: Option<(String, String)>,
    pub(super) tls: Option<Tls>,
}

#[derive(Clone)]
pub(super) struct Tls {
    /// Who is trusted, as PEM.
    pub(super) ca: Vec<u8>,
    /// Who we are: certificate and key, as PEM.
    pub(super) identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |is: bool| if is { "set" } else { "not set" };
        write!(f, "Access {{ user: {}, tls: {} }}", of(self.user.is_some()), of(self.tls.is_some()))
    }
}

impl Address {
    /// Reads `etcd://a:2379,b:2379/prefix`, or `etcds://` for TLS. User, password and certificates come from the
    /// environment, as `variable` reads it: what stands in an address ends up in logs.
    pub(super) fn parse(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Address> {
        let (is_tls, rest) = match (text.strip_prefix("etcd://"), text.strip_prefix("etcds://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return wrong("an address of a cluster begins with etcd:// or etcds://"),
        };
        let (members, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if rest.contains('@') {
            return wrong(
                "an address holds no password, for it ends up in logs; set WATCHKEEP_ETCD_USER and WATCHKEEP_ETCD_PASSWORD",
            );
        }
        let prefix = prefix.trim_matches('/');
        if prefix.is_empty() {
            return wrong(
                "an address of a cluster ends with the store's prefix, as in etcd://10.0.0.1:2379/app",
            );
        }
        let members: Vec<String> =
            members.split(',').map(str::trim).filter(|member| !member.is_empty()).map(with_port).collect();
        if members.is_empty() {
            return wrong("an address names at least one member, as in etcd://10.0.0.1:2379/app");
        }
        let access = Access { user: user(&variable)?, tls: tls(is_tls, &variable)? };
        let quota = quota(variable("WATCHKEEP_ETCD_QUOTA"))?;
        Ok(Address { members, prefix: format!("{prefix}/"), access, quota })
    }
}

fn quota(said: Option<String>) -> Result<Option<u64>> {
    let Some(said) = said else { return Ok(None) };
    match said.trim().parse() {
        Ok(bytes) if bytes > 0 => Ok(Some(bytes)),
        _ => wrong(
            "WATCHKEEP_ETCD_QUOTA is a number of bytes, the same that etcd is started with as --quota-backend-bytes",
        ),
    }
}

fn with_port(member: &str) -> String {
    let has_port = member.rsplit_once(':').is_some_and(|(host, port)| {
        !port.is_empty()
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && (!host.contains(':') || host.ends_with(']'))
    });
    if has_port { member.to_owned() } else { format!("{member}:{PORT}") }
}

fn user(variable: &impl Fn(&str) -> Option<String>) -> Result<Option<(String, String)>> {
    let Some(name) = variable("WATCHKEEP_ETCD_USER") else { return Ok(None) };
    let password = match (variable("WATCHKEEP_ETCD_PASSWORD"), variable("WATCHKEEP_ETCD_PASSWORD_FILE")) {
        (Some(password), _) => password,
        (None, Some(path)) => {
            String::from_utf8_lossy(&read(&path)?).trim_end_matches(['\r', '\n']).to_owned()
        }
        (None, None) => {
            return wrong(
                "WATCHKEEP_ETCD_USER is set, and its password is not; set WATCHKEEP_ETCD_PASSWORD_FILE",
            );
        }
    };
    Ok(Some((name, password)))
}

fn tls(wanted: bool, variable: &impl Fn(&str) -> Option<String>) -> Result<Option<Tls>> {
    if !wanted {
        return Ok(None);
    }
    let Some(ca) = variable("WATCHKEEP_ETCD_CA") else {
        return wrong("etcds:// needs the certificate of who is trusted; name its file in WATCHKEEP_ETCD_CA");
    };
    let identity = match (variable("WATCHKEEP_ETCD_CERT"), variable("WATCHKEEP_ETCD_KEY")) {
        (Some(certificate), Some(key)) => Some((read(&certificate)?, read(&key)?)),
        (None, None) => None,
        _ => return wrong("WATCHKEEP_ETCD_CERT and WATCHKEEP_ETCD_KEY go together; set both, or neither"),
    };
    Ok(Some(Tls { ca: read(&ca)?, identity }))
}

fn read(path: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|cause| {
        let what = format!("{path:?}, for the connection to the cluster, cannot be read");
        Reason::Io { what, cause }.into()
    })
}

fn wrong<T>(what: &str) -> Result<T> {
    Err(Error::from(Reason::Invalid { what: what.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Address> {
        Address::parse(text, |_| None)
    }

    #[test]
    fn an_address_names_members_and_a_prefix_and_no_secret() -> Result<()> {
        let address = parse("etcd://a, b:1,[::1],[::1]:7/some/app/")?;
        assert_eq!(address.members, ["a:2379", "b:1", "[::1]:2379", "[::1]:7"]);
        assert_eq!(address.prefix, "some/app/");
        for bad in ["a:1/app", "http://a:1/app", "etcd://a:1", "etcd://a:1/", "etcd:///app", "etcds://a/app"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(
            parse("etcd://root:se/cret@a/app")
                .expect_err("a secret")
                .to_string()
                .contains("WATCHKEEP_ETCD_PASSWORD")
        );
        let with_secret = parse("etcd://root:secret@a/app").expect_err("a secret").to_string();
        assert!(with_secret.contains("WATCHKEEP_ETCD_PASSWORD") && !with_secret.contains("secret@"));
        Ok(())
    }

    #[test]
    fn what_gets_one_in_is_never_shown() -> Result<()> {
        let variable = |name: &str| match name {
            "WATCHKEEP_ETCD_USER" => Some("root".to_owned()),
            "WATCHKEEP_ETCD_PASSWORD" => Some("hunter2".to_owned()),
            _ => None,
        };
        let address = Address::parse("etcd://a/app", variable)?;
        assert_eq!(address.access.user, Some(("root".to_owned(), "hunter2".to_owned())));
        assert!(!format!("{address:?}").contains("hunter2"));
        assert!(
            Address::parse("etcd://a/app", |name| name.ends_with("USER").then(|| "root".to_owned())).is_err()
        );
        Ok(())
    }
}
