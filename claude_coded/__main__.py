"""`python -m claude_coded` is `claude-coded`."""

from claude_coded.command_line import main

if __name__ == "__main__":
    main()
