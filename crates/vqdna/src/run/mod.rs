//! stub
use std::path::Path;
/// write aside
pub fn write_aside(path: &Path, bytes: &[u8]) -> std::io::Result<()> { std::fs::write(path, bytes) }
