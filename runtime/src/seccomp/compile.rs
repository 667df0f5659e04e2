//! From spans of numbers to classic BPF (`linux/filter.h`, `linux/seccomp.h`).
//!
//! A balanced tree of comparisons, so that a call costs about seven of them.
//! Only what the kernel can follow ahead is used (loads of number and
//! architecture, comparisons with constants): from Linux 5.11 on it knows from
//! that which numbers are always allowed, and runs no filter for these.

use libc::{
    BPF_ABS, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W,
    SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, sock_filter,
};

use super::policy::Verdict;

/// Offsets in `struct seccomp_data`. The argument's low half comes first:
/// everything here is little-endian.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

/// `spans` as [`super::policy::spans`] gives them.
pub fn program(audit_number: u32, spans: &[(u32, Verdict)]) -> Vec<sock_filter> {
    let mut program = vec![
        load(ARCHITECTURE),
        jump(BPF_JEQ, audit_number, 1, 0),
        // Docker lets in the 32-bit calls of a 64-bit machine too. An image is
        // chosen by the node's architecture, so that no program needs them,
        // and they are the less tested way into the kernel. An error number
        // would have a program in the wrong place go on in some odd way.
        end(SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
    ];
    program.extend(tree(spans));
    program
}

/// Left half, right half, and before them the comparison that skips the left.
fn tree(spans: &[(u32, Verdict)]) -> Vec<sock_filter> {
    let (left, right) = match spans {
        [] => return Vec::new(),
        [(_, verdict)] => return leaf(*verdict),
        _ => spans.split_at(spans.len() / 2),
    };
    let start = right.first().map_or(0, |(start, _)| *start);
    let (left, right) = (tree(left), tree(right));
    let mut tree = match u8::try_from(left.len()) {
        Ok(skip) => vec![jump(BPF_JGE, start, skip, 0)],
        // A conditional jump has 8 bits, a plain one 32.
        Err(_) => vec![
            jump(BPF_JGE, start, 0, 1),
            statement(BPF_JMP | BPF_JA, u32::try_from(left.len()).unwrap_or(u32::MAX)),
        ],
    };
    tree.extend(left);
    tree.extend(right);
    tree
}

fn leaf(verdict: Verdict) -> Vec<sock_filter> {
    let refused = |errno: i32| end(SECCOMP_RET_ERRNO | errno.unsigned_abs());
    let (allow, refuse) = (end(SECCOMP_RET_ALLOW), refused(libc::EPERM));
    match verdict {
        Verdict::Allow => vec![allow],
        Verdict::Refuse(errno) => vec![refused(errno)],
        Verdict::WithoutBits(bits) => {
            vec![load(FIRST_ARGUMENT), jump(BPF_JSET, bits, 1, 0), allow, refuse]
        }
        Verdict::OneOf(values) => among(values, allow, refuse),
        Verdict::NoneOf(values) => among(values, refuse, allow),
    }
}

/// Some values.
fn among(values: &[u32], then: sock_filter, otherwise: sock_filter) -> Vec<sock_filter> {
    let mut leaf = vec![load(FIRST_ARGUMENT)];
    leaf.extend(values.iter().zip((1..=u8::MAX).take(values.len()).rev()).map(
        // Over the comparisons left and `otherwise`.
        |(value, skip)| jump(BPF_JEQ, *value, skip, 0),
    ));
    leaf.extend([otherwise, then]);
    leaf
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn end(answer: u32) -> sock_filter {
    statement(BPF_RET | BPF_K, answer)
}

fn statement(code: u32, k: u32) -> sock_filter {
    instruction(code, k, 0, 0)
}

fn jump(test: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    instruction(BPF_JMP | test | BPF_K, k, jt, jf)
}

#[allow(clippy::cast_possible_truncation)] // codes have 8 bits
fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}
