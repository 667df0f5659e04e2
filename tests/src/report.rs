//! Steps with their times, as people read them and as JSON.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

/// A run of several steps.
#[derive(Debug)]
pub struct Report {
    /// Before each line: which one of several it is about.
    title: String,
    start: Instant,
    steps: Vec<Step>,
}

#[derive(Debug, Serialize)]
struct Step {
    name: String,
    ok: bool,
    ms: u64,
}

impl Default for Report {
    fn default() -> Self {
        Self::of("")
    }
}

impl Report {
    /// One of several that run at the same time.
    #[must_use]
    pub fn of(title: &str) -> Self {
        Self { title: title.to_owned(), start: Instant::now(), steps: Vec::new() }
    }

    /// Does one step and says how it went.
    ///
    /// # Errors
    /// What `work` says.
    pub fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.line(&format!("{name} …"));
        let start = Instant::now();
        let result = work();
        let ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mark = if result.is_ok() { "ok" } else { "FAILED" };
        self.line(&format!("  {mark} in {ms} ms"));
        self.steps.push(Step { name: name.to_owned(), ok: result.is_ok(), ms });
        result
    }

    /// How many steps went well.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.steps.iter().filter(|step| step.ok).count()
    }

    /// Tells people about something that was just seen.
    pub fn say(&self, text: &str) {
        self.line(&format!("    {text}"));
    }

    fn line(&self, text: &str) {
        println!("{}[{:6.1} s] {text}", self.title, self.start.elapsed().as_secs_f64());
    }

    /// Writes `{"steps": [{"name", "ok", "ms"}]}`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let text = serde_json::to_string_pretty(&serde_json::json!({ "steps": self.steps }))?;
        std::fs::write(path, text + "\n")?;
        Ok(())
    }
}
