"""The command line: app.py gathers the commands, one file each; console*.py has what they print."""
