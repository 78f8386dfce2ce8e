//! All integration tests of the library in one binary, because each binary links Burn again.

mod golden;
