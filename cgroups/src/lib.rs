//! The cgroup tree of a node's pods: limits, usage, OOM kills, freeze, kill.
