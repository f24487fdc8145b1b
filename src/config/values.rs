//! The texts that stand for durations, sizes, rates, addresses and the like. Pure: text in, value out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use crate::clock::{Timestamp, parse_duration};
use crate::ids::TenantId;

/// What to write instead of a text that was not understood, where that can be told.
pub(super) type Hint = Option<String>;

/// A value that is written as text.
pub(super) trait Parse: Sized {
    /// What the text has to be, with its article and an example, for messages.
    const EXPECTED: &'static str;

    /// Reads the value.
    ///
    /// # Errors
    /// A hint, if the text is not [`Self::EXPECTED`].
    fn parse(text: &str) -> Result<Self, Hint>;

    /// How a message shows a text that was not understood; a text that may hold a secret is not shown.
    fn quote(text: &str) -> String {
        quoted(text)
    }
}

/// `text` in quotes and without control characters, cut where it gets long.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    if text.chars().count() <= LONGEST {
        return format!("{text:?}");
    }
    format!("{:?}", text.chars().take(LONGEST).chain(['…']).collect::<String>())
}

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many in each period.
    pub requests: NonZeroU32,
    /// The period; never zero.
    pub per: Duration,
    /// How many at once after a pause; one period's worth unless said otherwise.
    pub burst: NonZeroU32,
}

impl Parse for Rate {
    const EXPECTED: &'static str = "a rate such as \"50/s\", \"10/10s\" or \"50/s burst 200\"";

    fn parse(text: &str) -> Result<Self, Hint> {
        let words: Vec<_> = text.split_whitespace().collect();
        let (rate, burst) = match words.as_slice() {
            [rate] => (*rate, None),
            [rate, "burst", burst] => (*rate, Some(burst.parse().map_err(|_| None)?)),
            _ => return Err(None),
        };
        let (requests, per) = rate.split_once('/').ok_or(None)?;
        let requests =
            requests.parse().map_err(|_| Some("the number must be whole and at least 1".to_owned()))?;
        // A bare unit is one of it: `50/s`.
        let bare = per.starts_with(|first: char| first.is_ascii_alphabetic());
        let per = if bare { parse_duration(&format!("1{per}")) } else { parse_duration(per) };
        let per = per.filter(|per| !per.is_zero()).ok_or(None)?;
        Ok(Self { requests, per, burst: burst.unwrap_or(requests) })
    }
}

impl Rate {
    /// The rate as the configuration writes it.
    pub(super) fn show(self) -> String {
        format!("{}/{} burst {}", self.requests, show_duration(self.per), self.burst)
    }
}

impl Parse for Duration {
    const EXPECTED: &'static str = "a duration such as \"500ms\", \"30s\", \"5m\", \"24h\" or \"7d\"";

    fn parse(text: &str) -> Result<Self, Hint> {
        let with_unit = || text.parse::<u32>().ok().map(|number| format!("did you mean \"{number}s\"?"));
        parse_duration(text).ok_or_else(with_unit)
    }
}

/// The duration as the configuration writes it, in the largest unit (hours at most) that gives a whole
/// number.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
    let fits = units.into_iter().find(|(size, _)| millis.is_multiple_of(*size));
    fits.map_or_else(String::new, |(size, unit)| format!("{}{unit}", millis / size))
}

/// A duration drawn anew each time, both ends included.
pub(super) struct Latency(pub(super) RangeInclusive<Duration>);

impl Parse for Latency {
    const EXPECTED: &'static str = "a duration such as \"0ms\" or a range such as \"50ms..200ms\"";

    fn parse(text: &str) -> Result<Self, Hint> {
        let (low, high) = text.split_once("..").unwrap_or((text, text));
        let (low, high) = (Duration::parse(low)?, Duration::parse(high)?);
        let turned = || Some(format!("did you mean \"{}..{}\"?", show_duration(high), show_duration(low)));
        if low <= high { Ok(Self(low..=high)) } else { Err(turned()) }
    }
}

/// A number of bytes.
pub(super) struct Size(pub(super) u64);

impl Parse for Size {
    const EXPECTED: &'static str = "a size such as \"512KiB\", \"64MiB\" or \"1GiB\"";

    fn parse(text: &str) -> Result<Self, Hint> {
        let end = text.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = match unit.trim_start().to_ascii_lowercase().as_str() {
            "b" => 1,
            "kb" => 1000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "kib" => 1 << 10,
            "mib" => 1 << 20,
            "gib" => 1 << 30,
            "tib" => 1 << 40,
            _ => return Err(None),
        };
        number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).map(Self).ok_or(None)
    }
}

/// The size as the configuration writes it, in the largest unit that gives a whole number.
pub(super) fn show_size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let fits = units.into_iter().find(|(size, _)| bytes > 0 && bytes.is_multiple_of(*size));
    fits.map_or_else(|| format!("{bytes}B"), |(size, unit)| format!("{}{unit}", bytes / size))
}

impl Parse for SocketAddr {
    const EXPECTED: &'static str = "an address and port such as \"127.0.0.1:8787\"";

    fn parse(text: &str) -> Result<Self, Hint> {
        if let Ok(address) = text.parse() {
            return Ok(address);
        }
        let port = |text: &str| text.parse::<u16>().ok();
        if let Some(port) = text.strip_prefix("localhost:").and_then(port) {
            return Ok(Self::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
        }
        Err(port(text.strip_prefix(':').unwrap_or(text)).map(|port| {
            format!("write \"127.0.0.1:{port}\" for this machine only, \"0.0.0.0:{port}\" for everyone")
        }))
    }
}

/// A URL with scheme and host.
pub(super) struct Url(pub(super) Uri);

impl Parse for Url {
    const EXPECTED: &'static str = "a URL such as \"https://kie.example.com\"";

    fn parse(text: &str) -> Result<Self, Hint> {
        let uri: Uri = text.parse().map_err(|_| None)?;
        let scheme = uri.scheme_str();
        if !matches!(scheme, Some("http" | "https")) {
            return Err(Some("it must begin with http:// or https://".to_owned()));
        }
        let authority = uri.authority().map_or("", http::uri::Authority::as_str);
        if authority.contains('@') {
            return Err(Some("a name or password does not belong into a URL".to_owned()));
        }
        if text.contains(['?', '#']) {
            return Err(Some("leave out what follows ? or #".to_owned()));
        }
        let ends_in_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let good =
            uri.host().is_some_and(|host| !host.is_empty()) && ends_in_port == uri.port_u16().is_some();
        if good { Ok(Self(uri)) } else { Err(None) }
    }

    fn quote(text: &str) -> String {
        if text.contains('@') { "the value".to_owned() } else { quoted(text) }
    }
}

/// A URL without a path, to which paths are appended.
pub(super) struct BaseUrl(pub(super) Uri);

impl Parse for BaseUrl {
    const EXPECTED: &'static str = "a URL without a path, such as \"https://kie.example.com\"";

    fn parse(text: &str) -> Result<Self, Hint> {
        let Url(uri) = Url::parse(text)?;
        let base = || format!("did you mean \"{}://{}\"?", uri.scheme_str()?, uri.authority()?).into();
        if matches!(uri.path(), "" | "/") { Ok(Self(uri)) } else { Err(base()) }
    }

    fn quote(text: &str) -> String {
        Url::quote(text)
    }
}

impl Parse for PathBuf {
    const EXPECTED: &'static str = "the path of a file or directory";

    fn parse(text: &str) -> Result<Self, Hint> {
        if text.is_empty() || text.contains('\0') { Err(None) } else { Ok(text.into()) }
    }
}

impl Parse for String {
    const EXPECTED: &'static str = "a name of at most 64 characters";

    fn parse(text: &str) -> Result<Self, Hint> {
        let good = (1..=64).contains(&text.chars().count()) && !text.contains(char::is_control);
        if good { Ok(text.to_owned()) } else { Err(None) }
    }
}

impl Parse for TenantId {
    const EXPECTED: &'static str = "a name of 1 to 64 of a-z, 0-9, - and _";

    fn parse(text: &str) -> Result<Self, Hint> {
        let plain = |sign: char| sign.is_ascii_lowercase() || sign.is_ascii_digit() || "-_".contains(sign);
        if (1..=64).contains(&text.len()) && text.chars().all(plain) {
            return Ok(Self::new(text));
        }
        let lower = text.to_ascii_lowercase().replace([' ', '.'], "-");
        let better = lower != text && lower.chars().all(plain) && (1..=64).contains(&lower.len());
        Err(better.then(|| format!("did you mean \"{lower}\"?")))
    }
}

/// The name of an upstream key: like a tenant's, since both become labels of metrics.
pub(super) struct KeyName(pub(super) String);

impl Parse for KeyName {
    const EXPECTED: &'static str = TenantId::EXPECTED;

    fn parse(text: &str) -> Result<Self, Hint> {
        TenantId::parse(text).map(|id| Self(id.as_str().to_owned()))
    }
}

impl Parse for Timestamp {
    const EXPECTED: &'static str = "a date such as \"2027-01-01\" or a time such as \"2027-01-01T12:00:00Z\"";

    /// A date alone is its first instant in UTC.
    fn parse(text: &str) -> Result<Self, Hint> {
        let date_alone = || Self::parse_rfc3339(&format!("{text}T00:00:00Z"));
        let zone_missing =
            || Self::parse_rfc3339(&format!("{text}Z")).map(|_| format!("did you mean \"{text}Z\"?"));
        if text.len() == 10 {
            date_alone().ok_or(None)
        } else {
            Self::parse_rfc3339(text).ok_or_else(zone_missing)
        }
    }
}

/// The SHA-256 of a tenant's key. The key itself is nowhere kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// As the configuration writes it: `sha256:` and 64 hexadecimal digits.
    pub fn show(&self) -> String {
        format!("sha256:{}", crate::clock::hex(&self.0))
    }
}

impl Parse for KeyHash {
    const EXPECTED: &'static str = "\"sha256:\" and 64 hexadecimal digits";

    fn parse(text: &str) -> Result<Self, Hint> {
        let digits = text.strip_prefix("sha256:").filter(|digits| digits.len() == 64);
        let digits = digits.ok_or_else(|| Some("`kiegate hash` makes it from a key".to_owned()))?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let digit = |sign: &u8| char::from(*sign).to_digit(16);
            let value = pair.first().and_then(digit).zip(pair.last().and_then(digit));
            let value = value.and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
            *byte = value.ok_or(None)?;
        }
        Ok(Self(bytes))
    }

    fn quote(_text: &str) -> String {
        "the value".to_owned()
    }
}
