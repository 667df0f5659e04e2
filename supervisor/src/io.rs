//! `embedded-io`'s traits for the streams of the standard library.

use std::io::ErrorKind;

/// A stream or a file, as frames want it.
#[derive(Debug)]
pub(crate) struct Io<S>(pub S);

impl<S> embedded_io::ErrorType for Io<S> {
    type Error = embedded_io::ErrorKind;
}

impl<S: std::io::Read> embedded_io::Read for Io<S> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result.map_err(|error| error.kind().into()),
            }
        }
    }
}

impl<S: std::io::Write> embedded_io::Write for Io<S> {
    fn write(&mut self, buffer: &[u8]) -> Result<usize, Self::Error> {
        loop {
            match self.0.write(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result.map_err(|error| error.kind().into()),
            }
        }
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        self.0.flush().map_err(|error| error.kind().into())
    }
}
