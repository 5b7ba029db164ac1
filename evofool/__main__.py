"""python -m evofool"""

from evofool.cli import main

main()
