"""python -m al_label_ai"""

from al_label_ai import main

main()
