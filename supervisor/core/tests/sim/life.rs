//! One life of a node, repeatable by its seed, and how one that ends badly is
//! made as short as it can be: with fewer steps, fewer events, fewer faults.
//!
//! What goes wrong at a step follows from the seed and the step's number
//! alone, so that leaving one event out leaves the others as they are.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::bugs::Bug;
use crate::node::Node;
use crate::promise::Broken;

const FAULTY_STEPS: u32 = 250;
/// Shorter lives that are tried for each that ended badly: some seconds.
const TRIES_MAX: usize = 400;

/// What is left out of a life is what makes it short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    pub seed: u64,
    pub bug: Option<Bug>,
    /// Steps in which things go wrong, before the node is left in peace.
    pub steps: u32,
    /// Steps at which nothing happens to the node by itself.
    pub calm: BTreeSet<u32>,
    /// Requests neither fail nor take long.
    pub smooth: bool,
}

/// How a life ended.
#[derive(Debug)]
pub struct Ended {
    /// Plans that were made and checked.
    pub plans: u64,
    /// Faulty steps that were gone through, and those at which something
    /// happened.
    pub steps: u32,
    pub events: Vec<u32>,
    pub trace: Vec<String>,
    pub broken: Option<Broken>,
}

thread_local! {
    /// Panics are told by who catches them.
    static LIVES: Cell<bool> = const { Cell::new(false) };
}

impl Life {
    pub fn new(seed: u64, bug: Option<Bug>) -> Self {
        Self { seed, bug, steps: FAULTY_STEPS, calm: BTreeSet::new(), smooth: false }
    }

    /// Lives it; `traced`: with an account of it.
    pub fn live(&self, traced: bool) -> Ended {
        quiet_panics();
        let mut node = Node::new(self.clone(), traced);
        LIVES.set(true);
        let lived = panic::catch_unwind(AssertUnwindSafe(|| node.live()));
        LIVES.set(false);
        Ended {
            plans: node.plans,
            steps: node.steps,
            events: node.events,
            trace: node.trace,
            broken: lived.err().map(Broken::of),
        }
    }
}

/// The shortest life found that breaks the same promise as `life`, and how it
/// ends. Where `ended` was well, `life` itself.
pub fn shortened(life: Life, ended: Ended) -> (Life, Ended) {
    let mut shortest = Shortest { life, ended, tries: 0 };
    shortest.cut_steps();
    shortest.attempt(|life| life.smooth = true);
    shortest.drop_events();
    shortest.cut_steps();
    (shortest.life, shortest.ended)
}

struct Shortest {
    life: Life,
    ended: Ended,
    tries: usize,
}

impl Shortest {
    /// Takes over a shorter life if the same promise is broken in it.
    fn attempt(&mut self, shorten: impl FnOnce(&mut Life)) -> bool {
        let mut life = self.life.clone();
        shorten(&mut life);
        let Some(broken) = &self.ended.broken else { return false };
        if life == self.life || self.tries >= TRIES_MAX {
            return false;
        }
        self.tries += 1;
        let ended = life.live(false);
        let is_same = ended.broken.as_ref().is_some_and(|b| b.promise == broken.promise);
        if is_same {
            (self.life, self.ended) = (life, ended);
        }
        is_same
    }

    fn cut_steps(&mut self) {
        // What comes after the step that broke it has no part in it.
        let steps = self.ended.steps.saturating_add(1);
        self.attempt(|life| life.steps = life.steps.min(steps));
        let mut size = self.life.steps;
        while size > 0 {
            if !self.attempt(|life| life.steps = life.steps.saturating_sub(size)) {
                size /= 2;
            }
        }
    }

    /// By halves, quarters, … and one by one.
    fn drop_events(&mut self) {
        let mut size = self.ended.events.len();
        while size > 0 {
            let mut from = 0;
            while from < self.ended.events.len() {
                let part = self.ended.events.iter().skip(from).take(size);
                let part: Vec<u32> = part.copied().collect();
                if !self.attempt(|life| life.calm.extend(part)) {
                    from += size;
                }
            }
            size /= 2;
        }
    }
}

/// While a life is lived, a panic is no news.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !LIVES.get() {
                usual(info);
            }
        }));
    });
}
