"""`python -m claude_coded` is `claude-coded`."""

from claude_coded.daemon import main

if __name__ == "__main__":
    main()
