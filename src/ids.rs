//! The names and units that every module shares, each a type of its own so that none is taken for another.

use std::collections::BTreeSet;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul, Neg, Sub, SubAssign};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount of the upstream's currency, exact to a thousandth of a credit.
///
/// Prices have fractions (`6.5`), and so has the balance (`5916.25`); sums of floats would drift.
/// In JSON it is a number with at least one decimal (`4.0`), as the upstream writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Credits(i64);

impl Credits {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Whole credits.
    pub const fn whole(credits: i64) -> Self {
        Self(credits * 1000)
    }

    /// The nearest thousandth to `credits`; `None` if it is not a finite number or too large to count.
    pub fn from_f64(credits: f64) -> Option<Self> {
        let thousandths = (credits * 1000.0).round();
        #[expect(clippy::cast_possible_truncation, reason = "the range is checked in the same line")]
        (thousandths.abs() < 9e15).then_some(Self(thousandths as i64))
    }

    /// As a floating-point number, for JSON and metrics.
    #[expect(clippy::cast_precision_loss, reason = "amounts stay far below 2^53 thousandths")]
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// Whether it is less than nothing.
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// `quantity` times this amount, to the nearest thousandth.
    #[must_use]
    pub fn times(self, quantity: f64) -> Self {
        Self::from_f64(self.as_f64() * quantity).unwrap_or(Self(i64::MAX / 4))
    }
}

impl Add for Credits {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Credits {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Neg for Credits {
    type Output = Self;
    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl Mul<i64> for Credits {
    type Output = Self;
    fn mul(self, count: i64) -> Self {
        Self(self.0.saturating_mul(count))
    }
}

impl AddAssign for Credits {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Credits {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Credits {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Credits {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.as_f64())
    }
}

impl Serialize for Credits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_f64())
    }
}

impl<'de> Deserialize<'de> for Credits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let credits = f64::deserialize(deserializer)?;
        Self::from_f64(credits)
            .ok_or_else(|| serde::de::Error::custom(format!("{credits} is not an amount of credits")))
    }
}

/// The name of a team or an app that shares the gateway, as the configuration spells it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantId(String);

impl TenantId {
    /// Takes over `name`; what a valid name is, the configuration decides.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// A value that must never be printed: an API key, a token, a signing key.
///
/// `Debug` and `Display` print `***`; whoever really needs the text calls [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes over `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends or hashes it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

/// `name` for as long as the process lives. For names of small sets, such as those of operations, or what the configuration
/// says of limits: each is kept once, and whoever passes it on counts nothing that other cores count too.
pub fn interned(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return known;
    }
    let kept: &'static str = Box::leak(name.into());
    names.insert(kept);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credits_are_exact_where_floats_are_not() {
        let dime = Credits::from_f64(0.1).unwrap();
        assert_eq!((0..10).map(|_| dime).sum::<Credits>(), Credits::whole(1));
        assert_eq!(serde_json::to_string(&Credits::whole(4)).unwrap(), "4.0");
        assert_eq!(serde_json::from_str::<Credits>("5916.25").unwrap().to_string(), "5916.25");
        assert_eq!(Credits::from_f64(f64::NAN), None);
        assert_eq!(Credits::from_f64(f64::INFINITY), None);
    }

    #[test]
    fn a_secret_is_not_printed() {
        let key = Secret::new("kg_fake");
        assert_eq!(format!("{key} {key:?}"), "*** ***");
    }
}
