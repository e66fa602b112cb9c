//! Proxies that are trusted to say for whom they ask.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::HeaderName;
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A net of proxies: `10.1.0.0/16`, or one address.
///
/// ```
/// use watchkeep_server::ProxyNet;
/// assert_eq!("10.1.0.0/16".parse::<ProxyNet>()?.to_string(), "10.1.0.0/16");
/// assert_eq!("::1".parse::<ProxyNet>()?.to_string(), "::1/128");
/// assert!("proxy.example".parse::<ProxyNet>().is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyNet(IpNet);

impl fmt::Display for ProxyNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ProxyNet {
    type Err = String;

    fn from_str(text: &str) -> Result<ProxyNet, String> {
        let example = "give the proxy's address or net, such as --trusted-proxy 10.1.0.0/16";
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let net = net.map_err(|_| format!("'{text}' is no address and no net; {example}"))?;
        if net.prefix_len() == 0 {
            return Err(format!("'{text}' would take anybody's word; {example}"));
        }
        if matches!(net.addr(), IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
            return Err(format!("'{text}' is of IPv4, and written as IPv6; {example}"));
        }
        Ok(ProxyNet(net))
    }
}

/// All proxies that are trusted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies(Arc<[ProxyNet]>);

impl Proxies {
    pub(crate) fn and(&self, more: impl IntoIterator<Item = ProxyNet>) -> Proxies {
        Proxies(self.0.iter().copied().chain(more).collect())
    }

    pub(crate) fn have(&self, address: IpAddr) -> bool {
        self.0.iter().any(|ProxyNet(net)| net.contains(&address.to_canonical()))
    }

    /// For whom one of them asks: the last address in the header that is none of theirs. What stands before it, anybody
    /// may have written.
    pub(crate) fn client(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let lists = headers.get_all(FORWARDED_FOR).into_iter().rev();
        for hop in lists.flat_map(|list| list.as_bytes().rsplit(|byte| *byte == b',')) {
            let hop = std::str::from_utf8(hop).ok()?.trim();
            // Some proxies write the port, too.
            let address =
                hop.parse().or_else(|_| hop.parse().map(|address: SocketAddr| address.ip())).ok()?;
            if !self.have(address) {
                return Some(address.to_canonical());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_last_address_that_is_no_proxys_is_the_clients() -> Result<(), String> {
        let proxies = Proxies::default().and(["10.0.0.0/8".parse()?, "2001:db8::1".parse()?]);
        let client = |lists: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for list in lists {
                headers.append(FORWARDED_FOR, HeaderValue::from_static(list));
            }
            proxies.client(&headers).map(|address| address.to_string())
        };
        for (lists, expected) in [
            (&["192.0.2.1"][..], "192.0.2.1"),
            (&["192.0.2.1, 10.1.2.3"], "192.0.2.1"),
            (&["192.0.2.9, 192.0.2.1 ,10.1.2.3,10.9.9.9"], "192.0.2.1"),
            (&["nonsense, 192.0.2.1"], "192.0.2.1"),
            (&["192.0.2.9", "192.0.2.1", "10.1.2.3"], "192.0.2.1"),
            (&["192.0.2.1:4711"], "192.0.2.1"),
            (&["[2001:db8::2]:4711, ::ffff:10.0.0.1"], "2001:db8::2"),
            (&["::ffff:192.0.2.1, 2001:db8::1"], "192.0.2.1"),
        ] {
            assert_eq!(client(lists).as_deref(), Some(expected), "{lists:?}");
        }
        for lists in [
            &[][..],
            &[""],
            &["10.1.2.3"],
            &["192.0.2.1, unknown"],
            &["192.0.2.1,, 10.1.2.3"],
            &["192.0.2.1", ""],
        ] {
            assert_eq!(client(lists), None, "{lists:?}");
        }
        Ok(())
    }

    #[test]
    fn a_net_is_one_of_addresses_and_not_of_all() {
        for wrong in ["", "proxy.example", "10.0.0.0/33", "10.0.0/8", "0.0.0.0/0", "::/0", "::ffff:10.0.0.1"]
        {
            let refused = wrong.parse::<ProxyNet>().err().unwrap_or_default();
            assert!(refused.contains("--trusted-proxy 10."), "{wrong}: {refused}");
        }
        let proxies = Proxies::default().and("10.1.2.3/8".parse::<ProxyNet>());
        for (address, is_one) in
            [("10.255.0.1", true), ("::ffff:10.0.0.1", true), ("11.0.0.1", false), ("::1", false)]
        {
            assert_eq!(address.parse().map(|address| proxies.have(address)), Ok(is_one), "{address}");
        }
    }
}
