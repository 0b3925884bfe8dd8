"""pytest puts the directory of this file on the import path, so that every room's tests can import `fabricate`."""
