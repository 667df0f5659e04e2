pub mod executor;
pub mod judge;
pub mod ledger_file;
#[cfg(test)]
mod sample;
pub mod spec;
pub mod translate;
pub mod volumes;
