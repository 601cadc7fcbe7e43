//! A file that is hashed while it is read.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::opening::BOM;

/// A file being read, with the digest of the bytes read.
pub(super) struct DigestedFile {
    file: File,
    hasher: Sha256,
}

impl DigestedFile {
    /// Opens a file, and skips its byte order mark.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn open(file: &Path) -> io::Result<BufReader<Self>> {
        let mut reader = BufReader::new(Self { file: File::open(file)?, hasher: Sha256::new() });
        if reader.fill_buf()?.starts_with(BOM) {
            reader.consume(BOM.len());
        }
        Ok(reader)
    }

    /// Reads the rest, and returns the SHA-256 of the whole file in hexadecimal digits.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn digest(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(hexadecimal(self.hasher))
    }
}

/// Returns a digest in hexadecimal digits.
pub(super) fn hexadecimal(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Read for DigestedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
