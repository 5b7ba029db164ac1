"""python -m evofool"""

from evofool.cli.app import main

main()
