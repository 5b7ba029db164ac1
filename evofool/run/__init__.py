"""A run and its file: started, advanced, saved, resumed, read, checked, merged."""
