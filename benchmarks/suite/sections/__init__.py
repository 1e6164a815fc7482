"""The sections: what is measured. Each module has a function `section(options)`."""
