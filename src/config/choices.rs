//! The settings that are one word out of a few.

use super::unknown::nearest;
use super::values::{Hint, Parse};

/// An enum whose variants the configuration spells as the given words.
macro_rules! choice {
    ($(#[$about:meta])* $name:ident { $($(#[$meaning:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$meaning])* $variant,)+ }

        impl $name {
            /// The word for it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl Parse for $name {
            const EXPECTED: &'static str = concat!("one of:" $(, " ", $word)+);

            fn parse(text: &str) -> Result<Self, Hint> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(nearest(text, [$($word),+]).map(|word| format!("did you mean \"{word}\"?"))),
                }
            }
        }
    };
}

choice! {
    /// Which upstream answers.
    Mode {
        /// The simulator.
        Mock = "mock",
        /// The live API.
        Live = "live",
        /// The live API, and written down.
        Record = "record",
        /// A recording.
        Replay = "replay",
    }
}

impl Mode {
    /// Whether whoever calls has a sandbox: a clock of its own, and a control API.
    pub const fn has_sandbox(self) -> bool {
        matches!(self, Self::Mock | Self::Replay)
    }

    /// Whether requests reach the live API, where they cost money.
    pub const fn is_paid(self) -> bool {
        matches!(self, Self::Live | Self::Record)
    }
}

choice! {
    /// What happens to a path that is no known operation.
    UnknownPaths {
        /// It goes upstream as operation `other`.
        Forward = "forward",
        /// It is refused.
        Deny = "deny",
    }
}

choice! {
    /// How to limit while the shared store cannot be reached.
    OnOutage {
        /// Each gateway by itself.
        Local = "local",
        /// Not at all: requests are refused.
        Refuse = "refuse",
    }
}

choice! {
    /// How long simulated tasks take.
    Pace {
        /// No time at all.
        Instant = "instant",
        /// About three seconds.
        Fast = "fast",
        /// As long as the live API takes, as far as that is known.
        Realistic = "realistic",
    }
}

choice! {
    /// Which HTTP status the simulator's errors have.
    HttpStatus {
        /// That of the live API: mostly 200 with the code in the body.
        Wire = "wire",
        /// The code of the body.
        Real = "real",
    }
}

choice! {
    /// The form of a log line.
    LogFormat {
        /// For people.
        Pretty = "pretty",
        /// For programs: one JSON object a line.
        Json = "json",
    }
}

choice! {
    /// The least important log lines that are written.
    LogLevel {
        /// What went wrong.
        Error = "error",
        /// What may go wrong.
        Warn = "warn",
        /// What happens.
        Info = "info",
        /// And why.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}
