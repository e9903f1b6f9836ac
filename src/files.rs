//! The one way to write a file whole (a crash leaves the old file or the new one), to make a folder, and to see whether
//! what is there is private.

use std::{
    fs::{DirBuilder, File, Permissions},
    io::{self, Write},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{fs::OFlags, process::geteuid};
use tempfile::NamedTempFile;

/// A file that will take the place of another. Until then it is beside it, under a random name that no other
/// process opens; dropped, it is removed.
#[derive(Debug)]
pub(crate) struct Replacement {
    file: NamedTempFile,
    path: PathBuf,
}

impl Replacement {
    /// A new file with the permission bits `mode`, for `path`.
    ///
    /// # Errors
    /// Why it can't be made.
    pub(crate) fn of(path: &Path, mode: u32) -> io::Result<Self> {
        let file = tempfile::Builder::new()
            .prefix(".rekey-")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(folder_of(path))?;
        let path = path.to_owned();
        Ok(Self { file, path })
    }

    /// Where it is until then.
    pub(crate) fn temporary(&self) -> &Path {
        self.file.path()
    }

    /// Puts it in its place, once it is on disk.
    ///
    /// # Errors
    /// Why it can't; the file that was there is then as it was.
    pub(crate) fn commit(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist(&self.path)?;
        File::open(folder_of(&self.path))?.sync_all()
    }

    /// The same where nothing may be there yet, not even a link.
    ///
    /// # Errors
    /// Why it can't; what was there is then as it was.
    pub(crate) fn commit_as_new(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist_noclobber(&self.path)?;
        File::open(folder_of(&self.path))?.sync_all()
    }
}

impl Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Makes a folder, and those above it, for this user alone. One that is there stays as it is.
///
/// # Errors
/// Why it can't.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Why a file or a folder is not private.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotPrivate {
    /// Neither this user's nor root's.
    #[error("it belongs to the user {0}, and must belong to you or to root")]
    Owner(u32),
    /// Others may read or change it, as its permission bits say.
    #[error("its mode is {0:04o}, and nobody but its owner may have access")]
    Mode(u32),
    /// It can't be looked at.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Refuses an open file or folder that others own or have access to. What is open can't be another one by now.
///
/// # Errors
/// [`NotPrivate`].
pub(crate) fn refuse_shared(file: &File) -> Result<(), NotPrivate> {
    let found = file.metadata()?;
    if found.uid() != geteuid().as_raw() && found.uid() != 0 {
        return Err(NotPrivate::Owner(found.uid()));
    }
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(NotPrivate::Mode(mode));
    }
    Ok(())
}

/// Opens a file to read, but not through a link in its own place.
///
/// # Errors
/// The operating system's.
pub(crate) fn open_no_link(path: &Path) -> io::Result<File> {
    let no_link = OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = File::options();
    options.read(true).custom_flags(no_link).open(path)
}

/// The folder of a file.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_stays_as_it_was() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("file");
        for text in ["one", "two"] {
            let mut file = Replacement::of(&path, 0o600).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.commit().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut half = Replacement::of(&path, 0o600).unwrap();
        half.write_all(b"half").unwrap();
        drop(half);
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_new_file_takes_the_place_of_nothing() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("file");
        let write = |text: &[u8]| {
            let mut file = Replacement::of(&path, 0o600).unwrap();
            file.write_all(text).unwrap();
            file.commit_as_new()
        };
        write(b"one").unwrap();
        let error = write(b"two").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        write(b"three").unwrap_err();
        assert!(!folder.path().join("elsewhere").exists());
        assert!(open_no_link(&path).is_err());
    }

    #[test]
    fn what_others_may_read_or_own_is_not_private() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o602, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let found = refuse_shared(&File::open(&path).unwrap());
            assert_eq!(found.is_ok(), good, "{mode:o}");
        }
        if geteuid().is_root() {
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            std::os::unix::fs::chown(&path, Some(10_001), None).unwrap();
            let found = refuse_shared(&File::open(&path).unwrap());
            assert!(matches!(found, Err(NotPrivate::Owner(10_001))), "{found:?}");
        }
    }
}
