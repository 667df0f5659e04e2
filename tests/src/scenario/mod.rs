//! What a test does and checks, written once: against the node of this
//! machine by `tests/tests/`, and against machines by `wherry-qemu`.
//!
//! Each takes a node that answers and leaves one that runs.

pub mod deaths;
pub mod ends;
pub mod isolation;
pub mod logs;
pub mod rollback;
pub mod sealing;
pub mod upgrade;
