//! What a tenant may use, which hosts may be called back, and who may connect: patterns, checked when they
//! are read.

use std::fmt;
use std::net::IpAddr;

use globset::{GlobBuilder, GlobMatcher};

use super::values::{Hint, Parse};

/// What an `allow` or `deny` entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An operation, such as `veo.generate`.
    Operation,
    /// A model, such as `bytedance/seedream`.
    Model,
}

/// An entry of `allow` or `deny`: `veo.*` for operations, `model:bytedance/*` for models.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    subject: Subject,
    matcher: GlobMatcher,
}

impl Pattern {
    /// The prefix of a pattern for models.
    const MODEL: &'static str = "model:";

    /// What it is about.
    pub fn subject(&self) -> Subject {
        self.subject
    }

    /// Whether it is about operations and `operation` is one of them.
    pub fn matches_operation(&self, operation: &str) -> bool {
        self.subject == Subject::Operation && self.matcher.is_match(operation)
    }

    /// Whether it is about models and `model` is one of them.
    pub fn matches_model(&self, model: &str) -> bool {
        self.subject == Subject::Model && self.matcher.is_match(model)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl Parse for Pattern {
    const EXPECTED: &'static str =
        "a pattern of operations such as \"veo.*\" or of models such as \"model:google/*\"";

    fn parse(text: &str) -> Result<Self, Hint> {
        let model = text.strip_prefix(Self::MODEL);
        let subject = if model.is_some() { Subject::Model } else { Subject::Operation };
        let glob = model.unwrap_or(text);
        if subject == Subject::Operation && glob.contains(['/', ':']) {
            let name = glob.rsplit(':').next().unwrap_or(glob);
            return Err(Some(format!("did you mean \"{}{name}\"?", Self::MODEL)));
        }
        if glob.is_empty() || glob.contains(|sign: char| sign.is_whitespace() || sign.is_control()) {
            return Err(None);
        }
        // Nobody knows whether the upstream minds how the letters of a model are written.
        let glob = GlobBuilder::new(glob).case_insensitive(subject == Subject::Model).build();
        let matcher = glob.map_err(|error| Some(error.kind().to_string()))?.compile_matcher();
        Ok(Self { text: text.to_owned(), subject, matcher })
    }
}

/// A host that may be called back: `hooks.example.com`, an address, or `*.example.com` for every name below
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern(String);

impl HostPattern {
    /// Whether `host`, a name or an address without port and brackets, is meant. `*.example.com` does not
    /// mean `example.com` itself.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        match self.0.strip_prefix('*') {
            Some(suffix) => host.strip_suffix(suffix).is_some_and(|name| !name.is_empty()),
            None => host == self.0,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl Parse for HostPattern {
    const EXPECTED: &'static str = "a host such as \"hooks.example.com\" or \"*.example.com\"";

    fn parse(text: &str) -> Result<Self, Hint> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.to_string()));
        }
        let fits = |sign: char| sign.is_ascii_alphanumeric() || "-_".contains(sign);
        let label = |label: &str| (1..=63).contains(&label.len()) && label.chars().all(fits);
        let name = text.strip_prefix("*.").unwrap_or(text);
        if name.len() <= 253 && name.split('.').all(label) {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        let address = text.contains("//") || text.contains(':');
        Err(address.then(|| "leave out scheme, port and path".to_owned()))
    }
}

/// A range of addresses, such as `10.0.0.0/8`; a bare address is a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpNet {
    network: IpAddr,
    prefix: u8,
}

impl IpNet {
    /// Whether `address` lies in it. An IPv4 address in IPv6 clothing counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.network.is_ipv4() && masked(address, self.prefix) == self.network
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.network, self.prefix)
    }
}

impl Parse for IpNet {
    const EXPECTED: &'static str = "a range of addresses such as \"10.0.0.0/8\" or \"fd00::/8\"";

    fn parse(text: &str) -> Result<Self, Hint> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().map_err(|_| None)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), str::parse).ok().filter(|prefix| *prefix <= longest);
        let prefix = prefix.ok_or_else(|| Some(format!("what follows / must be at most {longest}")))?;
        let net = Self { network: masked(address, prefix), prefix };
        if net.network == address { Ok(net) } else { Err(Some(format!("did you mean \"{net}\"?"))) }
    }
}

/// `address` with all but its first `prefix` bits cleared.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_about_operations_or_models() {
        let veo = Pattern::parse("veo.*").unwrap();
        assert!(veo.matches_operation("veo.generate") && !veo.matches_operation("runway.generate"));
        assert!(!veo.matches_model("veo.generate"));
        assert!(Pattern::parse("model:veo3*").unwrap().matches_model("VEO3_FAST"));
        let bytedance = Pattern::parse("model:bytedance/*").unwrap();
        assert!(
            bytedance.matches_model("bytedance/seedream/v4") && !bytedance.matches_operation("bytedance/x")
        );
        assert_eq!(Pattern::parse("google/veo").unwrap_err().unwrap(), "did you mean \"model:google/veo\"?");
        assert!(
            Pattern::parse("veo.[a").is_err()
                && Pattern::parse("").is_err()
                && Pattern::parse("model:").is_err()
        );
    }

    #[test]
    fn a_host_pattern_means_names_below_and_not_names_that_merely_end_alike() {
        let hosts = HostPattern::parse("*.Example.com").unwrap();
        assert!(hosts.matches("hooks.example.com") && hosts.matches("a.b.EXAMPLE.com"));
        assert!(!hosts.matches("example.com") && !hosts.matches("badexample.com"));
        assert!(HostPattern::parse("10.0.0.5").unwrap().matches("10.0.0.5"));
        for bad in ["https://example.com", "example.com:8443", "a..b", "", "*", "exa*mple.com"] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_range_contains_what_shares_its_first_bits() {
        let inside = |net: &str, address: &str| IpNet::parse(net).unwrap().contains(address.parse().unwrap());
        assert!(inside("10.0.0.0/8", "10.255.0.1") && !inside("10.0.0.0/8", "11.0.0.1"));
        assert!(inside("0.0.0.0/0", "255.1.2.3") && !inside("0.0.0.0/0", "::1"));
        assert!(inside("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(inside("fd00::/8", "fd12::1") && inside("::/0", "fe80::1") && inside("::1", "::1"));
        assert_eq!(IpNet::parse("10.1.0.0/8").unwrap_err().unwrap(), "did you mean \"10.0.0.0/8\"?");
        assert!(IpNet::parse("10.0.0.0/33").is_err() && IpNet::parse("ten/8").is_err());
    }
}
