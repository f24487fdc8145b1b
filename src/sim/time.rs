//! A sandbox's own clock: virtual time as a straight line over real time.

use std::time::Duration;

use crate::clock::Timestamp;

/// Virtual time: at some real instant it was so late, and since then it has run at `rate`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct VirtualClock {
    at_real: Timestamp,
    at_virtual: Timestamp,
    /// Virtual seconds in a real one; 0 stands still.
    rate: f64,
}

impl VirtualClock {
    /// Shows real time.
    pub(super) fn real(now: Timestamp) -> Self {
        Self { at_real: now, at_virtual: now, rate: 1.0 }
    }

    /// The virtual time at the real time `real`.
    pub(super) fn at(&self, real: Timestamp) -> Timestamp {
        self.at_virtual + real.saturating_since(self.at_real).mul_f64(self.rate)
    }

    /// How much real time passes from `real` until it is `due` by this clock; `None` if it stands still.
    pub(super) fn until(&self, due: Timestamp, real: Timestamp) -> Option<Duration> {
        let ahead = due.saturating_since(self.at(real));
        if ahead.is_zero() {
            return Some(Duration::ZERO);
        }
        // Rounded up to a millisecond, so that whoever waits so long does not wake just before.
        let millis = (ahead.as_secs_f64() * 1000.0 / self.rate).ceil();
        (self.rate > 0.0).then(|| Duration::try_from_secs_f64(millis / 1000.0).unwrap_or(Duration::MAX))
    }

    /// Puts it forward to `time`; never back.
    pub(super) fn forward_to(&mut self, time: Timestamp, real: Timestamp) {
        *self = Self { at_real: real, at_virtual: time.max(self.at(real)), rate: self.rate };
    }

    /// Sets it to `time`, be it earlier or later.
    pub(super) fn set(&mut self, time: Timestamp, real: Timestamp) {
        *self = Self { at_real: real, at_virtual: time, rate: self.rate };
    }

    /// Lets it run at another rate from now on.
    pub(super) fn set_rate(&mut self, rate: f64, real: Timestamp) {
        *self = Self { at_real: real, at_virtual: self.at(real), rate };
    }

    /// Virtual seconds in a real one.
    pub(super) fn rate(&self) -> f64 {
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_can_be_frozen_sped_up_and_put_forward() {
        let at = Timestamp::from_millis;
        let mut clock = VirtualClock::real(at(1000));
        assert_eq!(clock.at(at(1500)), at(1500));
        clock.set_rate(60.0, at(2000));
        assert_eq!(clock.at(at(3000)), at(62_000));
        assert_eq!(clock.until(at(122_000), at(3000)), Some(Duration::from_secs(1)));
        clock.set_rate(0.0, at(3000));
        assert_eq!(clock.at(at(9000)), at(62_000));
        assert_eq!(clock.until(at(62_001), at(9000)), None);
        assert_eq!(clock.until(at(62_000), at(9000)), Some(Duration::ZERO));
        clock.forward_to(at(70_000), at(9000));
        clock.forward_to(at(60_000), at(9000));
        assert_eq!(clock.at(at(9999)), at(70_000));
    }
}
