//! What the reconciler promises, and how a life in which it did not keep that
//! is told from others.

/// One invariant, or several that one kind of mistake breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Never fewer than replicas − `maxUnavailable` by our own doing.
    Available,
    /// Never more than replicas + `maxSurge`; none beside what it excludes.
    Places,
    /// No more memory is given away than there is.
    Memory,
    Dependencies,
    /// Nor does a container start before those that go before it, or a sidecar
    /// end before those that it serves.
    Order,
    /// What has succeeded is not run again, nor what has failed for good.
    Jobs,
    /// No try before its back-off is over.
    BackOff,
    /// None long after the longest one.
    BackOffBound,
    /// Nothing is asked for without cause, or told twice.
    Once,
    /// What is desired is not touched.
    Untouched,
    /// A pod is stopped in order, with its grace.
    Grace,
    /// Only what is available is published.
    Published,
    /// The same inputs, the same plan; serials and addresses are one pod's.
    Orderly,
    /// Good, or failed, for the right reason.
    Judged,
    /// Back to one that was good.
    WayBack,
    /// What failed is not tried again.
    NotAgain,
    /// Once faults stop, the node comes to rest.
    ComesToRest,
    /// At rest, what is there is what is desired.
    AtRest,
    /// …and nothing else.
    NothingLeft,
    /// A mistake of the simulator's own.
    Simulator,
}

/// A promise that was not kept.
#[derive(Clone, Debug)]
pub struct Broken {
    pub promise: Promise,
    pub text: String,
}

/// Ends the life if `$promise` does not hold.
macro_rules! keeps {
    ($promise:ident, $holds:expr, $($text:tt)+) => {
        if !$holds {
            std::panic::panic_any($crate::promise::Broken {
                promise: $crate::promise::Promise::$promise,
                text: format!($($text)+),
            });
        }
    };
}
pub(crate) use keeps;

impl Broken {
    /// From what a panic carries.
    pub fn of(payload: Box<dyn std::any::Any + Send>) -> Self {
        let text = |payload: &(dyn std::any::Any + Send)| match payload.downcast_ref::<String>() {
            Some(text) => text.clone(),
            None => payload.downcast_ref::<&str>().copied().unwrap_or("?").to_owned(),
        };
        match payload.downcast::<Self>() {
            Ok(broken) => *broken,
            Err(other) => Self { promise: Promise::Simulator, text: text(&*other) },
        }
    }
}
